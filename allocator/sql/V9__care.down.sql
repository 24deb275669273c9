-- Back to version 8: who loses a machine loses the lease. What else is of that version comes with its migrate.

-- What version 8 has no word for.
UPDATE leases SET status = 'failed', failure = 'code-expired' WHERE live AND needs_line;
UPDATE leases SET status = CASE status WHEN 'active' THEN 'ended' ELSE 'cancelled' END WHERE live AND seat <> '';
DELETE FROM pool_scaling;

-- What looks at columns of several topics.
DROP VIEW lease_views, lease_history, waiting CASCADE;
DROP FUNCTION broken_invariants(), pool_counts(text), pool_status(), unassigned_vms_count(), ensure_settings(text, jsonb),
    answers_to_requests(uuid[], text[], text[], bytea[], bytea[], text[], text[]);

-- Moves and terms
DROP TRIGGER pool_odd_keep_trigger ON pools;
DROP TRIGGER pool_odd_terms_trigger ON pools;
DROP TRIGGER lease_extend_trigger ON leases;
DROP TRIGGER lease_odd_end_trigger ON leases;
DROP TRIGGER lease_odd_line_trigger ON leases;
DROP FUNCTION why_not_longer(leases), is_waited_for(leases), somebody_waits(text), extensible_until(leases), extend_lease(uuid), record_new_end(), lock_lease(uuid),
    may_move(leases, pools), without_machine(leases, text), begins_anew(leases, leases), begins_again(leases, text, text), serves_anew(vms, vms),
    settle_leases(uuid[], uuid[], uuid[], uuid[]), move_leases(uuid[]), start_again(uuid), renew_line(uuid, jsonb, jsonb, text), ordered_kind(leases);
ALTER TABLE leases DROP COLUMN needs_line, DROP COLUMN trouble, DROP COLUMN moves, DROP COLUMN left_seconds, DROP COLUMN lent_seconds, DROP COLUMN turn_at;
ALTER TABLE pools DROP COLUMN restart_on_move, DROP COLUMN keep_seconds, DROP COLUMN extend_seconds, DROP COLUMN longest_seconds,
    DROP COLUMN warn_seconds;

-- Forecasts, and why
DROP VIEW forecast_calibration, invited_machines, queue_turns;
DROP FUNCTION sweep_forecasts(), why_forecasts(text), forecast(text), chances(text), booted_in(text), booting_in(text), coming_in_words(text),
    comes_in_words(text, bigint), comes_in_words(text, bigint, bigint), fair_turns(text), competing(text), why_lease(uuid), why_pool(text), why_pools(), why_lending(text), waits_held(integer, numeric, numeric), why_vm(text), machines_in_words(text), in_its_way(vms, timestamptz),
    is_free(vms, timestamptz, timestamptz), next_of(vms, timestamptz), next_of(leases), next_in(text, bigint), why_queued(leases), why_lent(leases), silence_in_words(leases), has_free(text),
    in_everybodys_way(text), until(timestamptz), since(timestamptz), span(double precision), lasted(text), forecast_moments(),
    seconds_left(timestamptz, double precision[], bigint), reached(double precision[], double precision),
    passed_after(double precision[], integer, double precision), at_most(double precision[], integer);
DROP TABLE forecasts, foretold;
DROP INDEX leases_that_lasted;

-- Groups, quotas and money: nobody has more than one live lease again, and whose it counts as is nobody's question.
DROP TRIGGER pool_odd_access_trigger ON pools;
DROP TRIGGER pool_odd_person_trigger ON pools;
DROP TRIGGER pool_odd_money_trigger ON pools;
DROP TRIGGER pool_odd_currency_trigger ON pools;
DROP TRIGGER pool_odd_time_zone_trigger ON pools;
DROP TRIGGER lease_seat_trigger ON leases;
DROP VIEW queue_places, pool_spending;
DROP FUNCTION fair_queue(text, integer), next_in_queue(text, integer, text[]), group_waits(text, text), room_of(text, text), has_quota(text, text), machines_of(text, text),
    free_seat(text, text), seat_beside(text, text), seat_by_hand(), is_within(pools, text), group_of(text),
    refusal_by_limits(text, text, text, bigint, bigint), say_what_is_over(integer[]),
    why_held_back(leases, text), why_limits(text), open_limits(text), quota_in_words(text, text);
DROP FUNCTION month_of(pools), month_after(pools), costs(pools), lent_within(leases, timestamptz, timestamptz), budget_in_words(text), affordable(text), lock_budgets(text[], text[]), within_budget(text, uuid[]),
    is_spent(text), affordable_queue(text, uuid), refuse_beyond_budget(leases, timestamptz), sweep_budgets();
DROP FUNCTION opens_a_lease(text, text, bytea), lock_for_serving(text[]), serve_queues(text[]), places_to_serve(text, uuid), next_to_serve(text, integer), count_free(text, bigint),
    machine_at_once(text, text, text, jsonb, bytea), abounding(text[], integer), request_before(text, text, bytea, bytea), machines_at_once(text[], text[], text[], jsonb[], bytea[]), check_program(integer),
    open_requests(uuid[], integer[], text[], text[], text[], jsonb[], text[], bytea[], bytea[], bytea[], bytea[], text[]);
DROP INDEX leases_queue_of_groups, leases_live_of_groups, leases_one_live_a_person;
CREATE UNIQUE INDEX leases_one_live_a_person ON leases (lower(email)) WHERE live AND position('@' IN email) > 0;
ALTER TABLE leases DROP COLUMN group_name, DROP COLUMN seat;

-- Rosters and join codes
DROP FUNCTION group_named(text), add_members(text, text[], boolean), remove_members(text, text[]), record_people(text, text[]),
    add_join_code(text, bytea, integer, timestamptz, timestamptz), revoke_join_codes(text), join_group(text, bytea), tidy_email(text);
DROP TABLE members, join_codes, shares, groups;
DROP FUNCTION guard_real_group(), guard_member(), record_members(), record_join_code(), record_group(), follow_groups(), lock_followers(), stamp_limit();

-- Scaling, schedules and the pause
DROP TRIGGER pool_odd_size_trigger ON pools;
DROP TRIGGER pool_size_lock_trigger ON pools;
DROP TRIGGER pool_size_follow_trigger ON pools;
DROP TRIGGER pool_odd_pause_trigger ON pools;
DROP TRIGGER pool_pause_lock_trigger ON pools;
DROP TRIGGER pool_pause_insert_trigger ON pools;
DROP TRIGGER pool_pause_trigger ON pools;
DROP TRIGGER pool_pause_follow_trigger ON pools;
DROP FUNCTION size_of(text), wave_time(text), lead_time(interval, integer, integer), wanted_machines(text, pool_size), growth_stopped(text), just_failed(text, text),
    count_boots(pool_scaling, text[]), scale(text, text[]), may_grow(pools, pool_scaling, integer, integer, integer),
    keep_leaving(text[], integer), let_go(pools, pool_scaling, integer, integer, text[]), still_leaving(text), lock_those_that_leave(), follow_size(),
    waiting_for_machines(text), size_status(text), why_size(text, boolean) CASCADE;
DROP FUNCTION occurrences(pool_schedules, timestamptz), scheduled(text, pool_size), next_hours(text, pool_size), guard_schedule(), record_schedule(), lease_ends(text),
    hours_end(text), leases_beyond(text, timestamptz, timestamptz), sweep_schedules() CASCADE;
DROP FUNCTION lock_those_who_wait(), stamp_pause(), follow_pause(), pause_pool(text, boolean, text);
DROP TABLE pool_schedules, pool_scaling;
DROP FUNCTION follow_scaling();
DROP TYPE pool_size;
ALTER TABLE operations DROP COLUMN pool;
ALTER TABLE pools DROP COLUMN paused, DROP COLUMN paused_at, DROP COLUMN spare_machines, DROP COLUMN min_machines,
    DROP COLUMN max_machines, DROP COLUMN boots_at_once, DROP COLUMN shrink_after_seconds;

-- Limits of pools, last of all: schedules ask for time zones as well.
ALTER TABLE pools DROP COLUMN access, DROP COLUMN per_person, DROP COLUMN is_budgeted, DROP COLUMN price_per_hour, DROP COLUMN budget, DROP COLUMN currency,
    DROP COLUMN time_zone, DROP COLUMN budget_told;
DROP FUNCTION is_time_zone(text);

DROP TRIGGER pool_guard_used_trigger ON pools;
DROP FUNCTION guard_used_pool();

-- Machines that fail by the dozen, and who is passed over
DROP FUNCTION may_fail(text), room_to_give_up(bigint, bigint), rest_if_failing(text), room_while_failing(text), why_failing(text);
ALTER TABLE leases DROP COLUMN passed_over;
ALTER TABLE pools DROP COLUMN rests_until;

-- Idleness and health
DROP TRIGGER pool_odd_idle_trigger ON pools;
DROP TRIGGER lease_idle_trigger ON leases;
DROP FUNCTION sweep_idle(), still_here(uuid), is_left_idle(leases, pools), was_just_warned(leases, pools), unused_since(leases, pools),
    idle_in_words(leases), record_idleness();
DROP FUNCTION client_api.hello(bigint, uuid, integer), client_api.well(bigint), may_return(vms), unwell(vms), unwell_vms(integer[]), stays_lent(vms, text), why_unwell(text), hub_hello(bytea[], bigint[], uuid[], integer[]);
DROP INDEX leases_left_idle;
ALTER TABLE leases DROP COLUMN here_at, DROP COLUMN idle_until, DROP COLUMN left_idle;
ALTER TABLE pools DROP COLUMN idle_seconds, DROP COLUMN idle_warn_seconds;
ALTER TABLE vm_heartbeats DROP COLUMN used_at;

-- What a claim writes
CREATE INDEX events_of_vm ON events (vm_id, id) WHERE vm_id IS NOT NULL;
DROP INDEX leases_live, leases_idempotency;
CREATE INDEX leases_live ON leases (status) WHERE live;
CREATE INDEX leases_expiries ON leases (pool, expires_at) WHERE live AND expires_at IS NOT NULL;
ALTER TABLE leases ADD CONSTRAINT leases_idempotency_sha256_key UNIQUE (idempotency_sha256);

-- Machines go on saying hello.
CREATE FUNCTION client_api.hello(p_epoch bigint, p_lease uuid)
RETURNS TABLE (vm_id integer, hostname text, status text, epoch bigint, lease_id uuid, lease_status text, kind text,
               period_seconds double precision)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    vm vms := client_vm(false);
BEGIN
    INSERT INTO vm_heartbeats (vm_id, seen_at) VALUES (vm.id, clock())
    ON CONFLICT (vm_id) DO UPDATE SET seen_at = excluded.seen_at;
    IF remembers_more(vm, p_epoch, p_lease) OR vm.status = 'booting' OR vm.reason = 'lost' THEN
        PERFORM welcome_vm(p_epoch, p_lease);
    ELSE
        PERFORM answer_before_the_disk();  -- a heartbeat that a crash loses is said again
    END IF;
    RETURN QUERY SELECT v.id, v.hostname::text, v.status::text, v.epoch, v.lease_id, l.status, l.kind, hello_period()
    FROM vms v LEFT JOIN leases l ON l.id = v.lease_id WHERE v.id = vm.id;
    IF NOT FOUND THEN  -- it was deleted while its heartbeat waited
        PERFORM client_vm(false);
    END IF;
END $$;
REVOKE ALL ON FUNCTION client_api.hello(bigint, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION client_api.hello(bigint, uuid) TO lablink_client;

-- Machines can be changed.
CREATE OR REPLACE FUNCTION in_custody(old vms, new vms) RETURNS vms LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF new.epoch < old.epoch OR new.epoch > greatest(old.epoch + 1, highest_epoch())
          OR new.epoch <> old.epoch AND new.status = old.status AND old.status IN ('available', 'in-use') THEN
        RAISE EXCEPTION 'the epoch of % cannot go from % to %', old.hostname, old.epoch, new.epoch
            USING ERRCODE = 'LL003', HINT = 'It fences the machine''s client; leave it out of the UPDATE.';
    ELSIF new.cleaned_epoch <> old.cleaned_epoch
          AND (old.status, new.status, new.cleaned_epoch) <> ('cleaning', 'available', old.epoch) THEN
        RAISE EXCEPTION 'cleaned_epoch of % is what its client confirmed', old.hostname USING ERRCODE = 'LL003',
            HINT = 'Say that it is clean: SET status = ''available'', cleaned_epoch = epoch WHERE status = ''cleaning'' AND …';
    ELSIF new.status = old.status AND (new.email, new.crd_command, new.lease_id)
                     IS DISTINCT FROM (old.email, old.crd_command, old.lease_id) THEN
        RAISE EXCEPTION 'VM % is %; its person and command cannot change', old.hostname, old.status
            USING ERRCODE = 'LL003', HINT = CASE old.status
                WHEN 'in-use' THEN 'Release it first: UPDATE vms SET status = ''available'' WHERE hostname = …'
                ELSE 'Lend it in the same statement: SET status = ''in-use'', email = …, crd_command = …' END;
    ELSIF new.reason IS DISTINCT FROM old.reason AND new.reason IS NOT NULL AND new.status <> 'failed' THEN
        RAISE EXCEPTION 'VM % would keep no reason as %', old.hostname, new.status USING ERRCODE = 'LL003',
            HINT = format('Leave the reason out, or take the machine out of service: '
                          'UPDATE vms SET status = ''failed'', reason = %L WHERE hostname = %L', new.reason, old.hostname);
    END IF;
    RETURN new;
END $$;

-- Compiled.
DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I RESET jit', current_database());
EXCEPTION WHEN insufficient_privilege THEN
    NULL;
END $$;

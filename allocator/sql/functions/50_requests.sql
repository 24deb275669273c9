-- What a person may do: ask for a machine, and hand it back.

-- Accepts a request, or finds the one it repeats. outcome: created | repeated | live (this e-mail holds a lease already).
-- Trials and rehearsals call this one; allocators ask request_vms, also for one.
-- p_command has no secret in it; p_secrets ({code, pin}) lives in lease_secrets until it is delivered.
CREATE OR REPLACE FUNCTION request_vm(
    p_email text, p_kind text, p_command jsonb, p_secrets jsonb, p_summary text, p_token_sha256 bytea, p_token_salt bytea,
    p_idempotency_sha256 bytea DEFAULT NULL, p_request_sha256 bytea DEFAULT NULL, p_pool text DEFAULT 'default')
RETURNS TABLE (lease_id uuid, outcome text, token_salt bytea) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    answer record;
BEGIN
    SELECT * INTO answer FROM request_vms(
        ARRAY[p_email], ARRAY[p_kind], ARRAY[p_command], ARRAY[p_secrets], ARRAY[p_summary], ARRAY[p_token_sha256],
        ARRAY[p_token_salt], ARRAY[p_idempotency_sha256], ARRAY[p_request_sha256], ARRAY[p_pool]);
    IF answer.refused IS NOT NULL THEN
        PERFORM refuse_request(answer.refused, p_pool);
    END IF;
    RETURN QUERY SELECT answer.lease_id, answer.outcome, answer.token_salt;
END $$;

-- The same for requests that came together, first come first served: row by row what request_vm would have answered, had
-- each come alone. A refusal is its SQLSTATE in `refused`, and nobody else's. p_patience limits for how long all of them wait
-- for what somebody else is changing: then the whole call fails with 55P03, to be asked one by one. vm_id and epoch are of the
-- machine that a new lease got at once. abounds says that the pool had p_many free machines; it is looked at only where
-- a twelfth as many ask. Plans are made once in a session, maybe while the tables are empty: rows are looked up
-- one by one, whatever a planner thinks of that.
CREATE OR REPLACE FUNCTION request_vms(
    p_emails text[], p_kinds text[], p_commands jsonb[], p_secrets jsonb[], p_summaries text[], p_tokens_sha256 bytea[],
    p_token_salts bytea[], p_idempotency_sha256 bytea[], p_requests_sha256 bytea[], p_pools text[], p_patience text DEFAULT NULL,
    p_many integer DEFAULT NULL)
RETURNS TABLE (lease_id uuid, outcome text, token_salt bytea, vm_id integer, epoch bigint, refused text, abounds boolean)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    asked  record;
    opened record;
    many   text[] := '{}';
BEGIN
    IF p_patience IS NOT NULL THEN
        p_patience := set_config('lock_timeout', p_patience, true);
    END IF;
    IF 12 * cardinality(p_pools) >= p_many THEN  -- so nobody alone waits for the answer
        many := abounding(p_pools, p_many);
    END IF;
    IF cardinality(p_pools) = 1 THEN  -- nearly all: no more than they need
        asked := machine_at_once(p_pools[1], p_emails[1], p_kinds[1], p_commands[1], p_idempotency_sha256[1]);
    ELSE
        asked := machines_at_once(p_pools, p_emails, p_kinds, p_commands, p_idempotency_sha256);
    END IF;
    opened := open_requests(
        asked.ids, asked.machines, p_emails, p_pools, p_kinds, p_commands, p_summaries, p_tokens_sha256, p_token_salts,
        p_idempotency_sha256, p_requests_sha256, asked.groups);
    IF array_remove(p_secrets, NULL) <> '{}' THEN
        INSERT INTO lease_secrets (lease_id, secrets)
        SELECT r.id, r.secrets FROM unnest(asked.ids, p_secrets) AS r (id, secrets)
        WHERE r.secrets IS NOT NULL AND (SELECT true FROM leases l WHERE l.id = r.id);
    END IF;
    IF opened.waiting > 0 THEN
        PERFORM lock_for_serving(p_pools) WHERE cardinality(p_pools) > 1;
        PERFORM serve_queue(l.pool, (array_agg(l.id ORDER BY l.place DESC))[1])
        FROM leases l WHERE l.id = ANY (asked.ids) AND l.status = 'queued' GROUP BY l.pool;
    ELSIF opened.leases = 1 AND cardinality(p_pools) = 1 THEN  -- nearly all: the answer is known
        RETURN QUERY VALUES (
            asked.ids[1], 'created', p_token_salts[1], asked.machines[1], opened.epoch, NULL, p_pools = many);
        RETURN;
    END IF;
    RETURN QUERY SELECT a.* FROM answers_to_requests(
        asked.ids, asked.refusals, p_emails, p_idempotency_sha256, p_requests_sha256, p_pools, many) a;
END $$;

-- Those of the pools that have p_many free machines.
CREATE OR REPLACE FUNCTION abounding(p_pools text[], p_many integer) RETURNS text[] LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN ARRAY(SELECT p.name FROM pools p WHERE p.name = ANY (p_pools) AND EXISTS (
        SELECT FROM vms v WHERE v.pool = p.name AND v.status = 'available' AND NOT v.draining OFFSET p_many - 1));
END $$;

-- What stands in the way of a new lease: the same request, another one with this key (LL007), or as many live leases of the person
-- as they may have; when one of those ended at this moment (40001), the request is to be made again.
CREATE OR REPLACE FUNCTION request_before(p_email text, p_pool text, p_idempotency_sha256 bytea, p_request_sha256 bytea,
    OUT lease_id uuid, OUT outcome text, OUT token_salt bytea, OUT refused text) LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    request bytea;
BEGIN
    SELECT l.id, 'repeated', l.token_salt, l.request_sha256 INTO lease_id, outcome, token_salt, request FROM leases l
    WHERE l.idempotency_sha256 = p_idempotency_sha256;
    IF FOUND AND request IS DISTINCT FROM p_request_sha256 THEN
        SELECT NULL, NULL, NULL, 'LL007' INTO lease_id, outcome, token_salt, refused;
    ELSIF NOT FOUND THEN
        SELECT l.id, 'live' INTO lease_id, outcome FROM leases l
        WHERE l.live AND position('@' IN l.email) > 0 AND lower(l.email) = lower(p_email)
          AND l.seat = free_seat(p_pool, p_email) ORDER BY l.place DESC LIMIT 1;
        refused := CASE WHEN NOT FOUND THEN '40001' END;
    END IF;
END $$;

-- What became of the requests, in their order: the lease that was opened for each, or what was in its way.
CREATE OR REPLACE FUNCTION answers_to_requests(
    p_ids uuid[], p_refusals text[], p_emails text[], p_idempotency_sha256 bytea[], p_requests_sha256 bytea[], p_pools text[],
    p_abounding text[])
RETURNS TABLE (lease_id uuid, outcome text, token_salt bytea, vm_id integer, epoch bigint, refused text, abounds boolean)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT answer.*, r.pool = ANY (p_abounding)
    FROM unnest(p_ids, p_refusals, p_emails, p_idempotency_sha256, p_requests_sha256, p_pools)
         WITH ORDINALITY AS r (id, refusal, email, key, request, pool, number)
    LEFT JOIN LATERAL (SELECT * FROM public.leases own WHERE own.id = r.id LIMIT 1) AS l ON true,
    LATERAL (SELECT l.id, CASE WHEN r.refusal IS NULL THEN 'created' END, l.token_salt, l.vm_id, l.epoch, r.refusal
             WHERE num_nonnulls(l.id, r.refusal) = 1
             UNION ALL SELECT b.lease_id, b.outcome, b.token_salt, NULL, NULL, b.refused
             FROM public.request_before(r.email, r.pool, r.key, r.request) AS b WHERE num_nonnulls(l.id, r.refusal) = 0) AS answer
    ORDER BY r.number;
END;

-- Why a pool refuses a request: there is none (LL005), or it does not run this command (LL009; the client checks again on the
-- machine). Null where it does not.
CREATE OR REPLACE FUNCTION refusal_of(p_pool text, p_accepts_desktop boolean, p_programs text[], p_kind text, p_command jsonb)
RETURNS text LANGUAGE sql IMMUTABLE
RETURN CASE
    WHEN p_pool IS NULL THEN 'LL005'
    WHEN NOT coalesce(CASE p_kind WHEN 'desktop' THEN p_accepts_desktop
                      WHEN 'job' THEN p_command -> 'argv' ->> 0 = ANY (p_programs) END, false) THEN 'LL009' END;

-- Why its pool refuses a request that comes alone; or the id of its lease, its person's group, and the free machine that it gets at
-- once, locked. No id: another lease is in its way. Whoever may have to wait for others, or be counted, waits for serve_queue, which comes next.
CREATE OR REPLACE FUNCTION machine_at_once(
    p_pool text, p_email text, p_kind text, p_command jsonb, p_idempotency_sha256 bytea,
    OUT refusals text[], OUT ids uuid[], OUT groups text[], OUT machines integer[])
LANGUAGE plpgsql AS $$
DECLARE
    this record;
BEGIN
    SELECT p.name, p.accepts_desktop, p.programs, p.paused, p.access, p.is_budgeted, p.is_budgeted OR p.access <> 'open' AS is_limited,
           EXISTS (SELECT FROM leases q WHERE q.pool = p.name AND q.status = 'queued' AND NOT q.passed_over) AS has_queue INTO this
    FROM pools p WHERE p.name = p_pool;
    groups := ARRAY[(SELECT m.group_name FROM members m WHERE lower(m.email) = lower(p_email))];
    refusals := ARRAY[refusal_of(this.name, this.accepts_desktop, this.programs, p_kind, p_command)];
    IF this.is_limited AND refusals[1] IS NULL THEN
        PERFORM lock_budgets(ARRAY[p_pool], ARRAY[p_email]) WHERE this.is_budgeted;
        IF NOT opens_a_lease(p_email, p_pool, p_idempotency_sha256) THEN
            RETURN;
        END IF;
        refusals[1] := refusal_by_limits(p_pool, this.access, groups[1], affordable(p_pool), 1);
    END IF;
    IF refusals[1] IS NULL THEN
        ids := ARRAY[gen_random_uuid()];
        machines := CASE WHEN NOT this.has_queue AND NOT this.paused AND (groups[1] IS NULL OR NOT has_quota(p_pool, groups[1]))
                         THEN free_machines(p_pool, 1) END;
    END IF;
END $$;

-- The same for requests that came together, first come first served; where several groups ask, all wait for serve_queue.
CREATE OR REPLACE FUNCTION machines_at_once(
    p_pools text[], p_emails text[], p_kinds text[], p_commands jsonb[], p_idempotency_sha256 bytea[],
    OUT refusals text[], OUT ids uuid[], OUT groups text[], OUT machines integer[])
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM lock_budgets(p_pools, p_emails) WHERE EXISTS (SELECT FROM pools p WHERE p.name = ANY (p_pools) AND p.is_budgeted);
    WITH budgets AS MATERIALIZED (
        SELECT p.name, affordable(p.name) AS leases FROM pools p WHERE p.name = ANY (p_pools) AND p.is_budgeted
    ), asked AS MATERIALIZED (
        SELECT r.number, r.pool, p.paused, m.group_name, l.opens, coalesce(
                   refusal_of(p.name, p.accepts_desktop, p.programs, r.kind, r.command),
                   CASE WHEN l.opens THEN refusal_by_limits(p.name, p.access, m.group_name, b.leases, row_number() OVER (PARTITION BY r.pool ORDER BY r.number)) END
               ) AS refusal
        FROM unnest(p_pools, p_emails, p_kinds, p_commands, p_idempotency_sha256) WITH ORDINALITY AS r (pool, email, kind, command, key, number)
        LEFT JOIN pools p ON p.name = r.pool LEFT JOIN budgets b ON b.name = r.pool LEFT JOIN members m ON lower(m.email) = lower(r.email),
        LATERAL (SELECT CASE WHEN p.access <> 'open' OR p.is_budgeted THEN opens_a_lease(r.email, r.pool, r.key) END AS opens OFFSET 0) AS l
    ), in_turn AS MATERIALIZED (
        SELECT *, refusal IS NULL AND opens IS NOT FALSE AS is_let_in, row_number() OVER (PARTITION BY pool, refusal, opens ORDER BY number) AS turn FROM asked
    ), taken AS MATERIALIZED (
        SELECT pool, free_machines(pool, count(*)) AS ids FROM in_turn
        WHERE is_let_in AND NOT paused AND NOT EXISTS (SELECT FROM leases q WHERE q.pool = in_turn.pool AND q.status = 'queued' AND NOT q.passed_over) GROUP BY pool
        HAVING count(group_name) = 0 OR count(group_name) = count(*) AND min(group_name) = max(group_name) AND NOT has_quota(pool, min(group_name))
    )
    SELECT array_agg(i.refusal ORDER BY i.number), array_agg(CASE WHEN i.is_let_in THEN gen_random_uuid() END ORDER BY i.number),
           array_agg(i.group_name ORDER BY i.number), array_agg(taken.ids[i.turn] ORDER BY i.number) INTO refusals, ids, groups, machines
    FROM in_turn i LEFT JOIN taken ON taken.pool = i.pool AND i.is_let_in;
END $$;

-- Opens the leases that nothing is in the way of: assigned to the machine at their place in p_machines, which is lent with that; or
-- queued in the order they came. Says how many were opened, and how many of them wait. Rows are written in the order of who
-- they are for, so that no two calls wait for each other.
CREATE OR REPLACE FUNCTION open_requests(
    p_ids uuid[], p_machines integer[], p_emails text[], p_pools text[], p_kinds text[], p_commands jsonb[], p_summaries text[],
    p_tokens_sha256 bytea[], p_token_salts bytea[], p_idempotency_sha256 bytea[], p_requests_sha256 bytea[], p_groups text[],
    OUT leases bigint, OUT waiting bigint, OUT epoch bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    WITH asked AS (
        SELECT n, p_emails[n] AS email, nextval('leases_place_seq') AS place FROM generate_series(1, cardinality(p_ids)) AS n
        WHERE p_ids[n] IS NOT NULL
    ), begun AS (
        INSERT INTO leases (id, place, email, status, pool, kind, command, crd_command, vm_id, hostname, epoch, token_sha256,
                            token_salt, idempotency_sha256, request_sha256, needs_line, group_name, seat, assigned_at, deadline, expires_at)
            OVERRIDING SYSTEM VALUE
        SELECT p_ids[n], a.place, a.email, CASE WHEN v.id IS NULL THEN 'queued' ELSE 'assigned' END, p_pools[n], p_kinds[n],
               p_commands[n], p_summaries[n], v.id, v.hostname, v.epoch + 1, p_tokens_sha256[n], p_token_salts[n],
               p_idempotency_sha256[n], p_requests_sha256[n],
               p_commands[n] IS NULL,  -- a desktop's line may come when the machine is there: see renew_line
               p_groups[n],
               s.seat, CASE WHEN v.id IS NOT NULL THEN clock() END,
               CASE WHEN v.id IS NOT NULL THEN clock() + make_interval(
                   secs => CASE WHEN p_commands[n] IS NULL THEN p.keep_seconds ELSE p.claim_seconds END) END,
               CASE WHEN v.id IS NOT NULL THEN clock() + make_interval(secs => p.lease_seconds) END
        FROM asked a JOIN pools p ON p.name = p_pools[n]
             JOIN LATERAL (SELECT CASE WHEN EXISTS (SELECT FROM leases own WHERE own.live AND position('@' IN own.email) > 0
                                                    AND lower(own.email) = lower(a.email)) THEN seat_beside(p.name, a.email)
                                       WHEN p.per_person > 1 THEN p.name || '/1' ELSE '' END AS seat OFFSET 0) AS s ON s.seat IS NOT NULL
             LEFT JOIN LATERAL (SELECT * FROM vms free WHERE free.id = p_machines[n] LIMIT 1) AS v ON true
        ORDER BY lower(a.email) COLLATE "C", a.place ON CONFLICT DO NOTHING RETURNING id, email, crd_command, vm_id, epoch
    ), lent AS (
        UPDATE vms v SET status = 'in-use', epoch = l.epoch, lease_id = l.id, email = l.email, crd_command = l.crd_command,
               updated_at = clock()
        FROM begun l WHERE v.id = l.vm_id
    )
    SELECT count(*), count(*) FILTER (WHERE vm_id IS NULL), max(b.epoch) INTO leases, waiting, epoch FROM begun b;
END $$;

-- Raises a refusal of request_vms, in words.
CREATE OR REPLACE FUNCTION refuse_request(p_refused text, p_pool text) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    this pools;
BEGIN
    IF p_refused IN ('LL005', 'LL009') THEN
        this := pool_named(p_pool);
        RAISE EXCEPTION 'pool % does not accept this command', p_pool USING ERRCODE = 'LL009',
            HINT = format('It accepts: %s', array_to_string(this.programs
                || CASE WHEN this.accepts_desktop THEN ARRAY['Chrome Remote Desktop''s start-host'] END, ', '));
    ELSIF p_refused = 'LL013' THEN
        RAISE EXCEPTION 'the budget of pool % does not allow one more lease', p_pool USING ERRCODE = 'LL013', HINT = budget_in_words(p_pool);
    ELSIF p_refused = 'LL014' THEN
        RAISE EXCEPTION 'pool % is for members of groups that have a share in it', p_pool USING ERRCODE = 'LL014',
            HINT = 'Ask its admin, or join a group with the code that you were given.';
    ELSIF p_refused = 'LL007' THEN
        RAISE EXCEPTION 'this Idempotency-Key was used for a different request' USING ERRCODE = 'LL007',
            HINT = 'Send the same request again, or a new key with the new one.';
    END IF;
    RAISE EXCEPTION 'the lease in the way ended at this moment' USING ERRCODE = 'serialization_failure', HINT = 'Try again.';
END $$;

-- The person hands the machine back, or stops waiting. Returns the lease's status; a terminal one stays as it is.
CREATE OR REPLACE FUNCTION end_lease(p_lease uuid) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    lease leases := lock_lease(p_lease);
BEGIN
    IF lease.id IS NULL THEN
        RAISE EXCEPTION 'there is no lease %', p_lease USING ERRCODE = 'LL004', HINT = 'List them: lablink leases list.';
    ELSIF NOT lease.live THEN
        RETURN lease.status;
    END IF;
    UPDATE leases SET status = CASE WHEN lease.status = 'active' THEN 'ended' ELSE 'cancelled' END
    WHERE id = p_lease RETURNING status INTO lease.status;
    RETURN lease.status;
END $$;

-- A request of version 8 that waits in one of these two while the database is migrated finds it changed: its allocator asks again
-- by itself. The next version drops them.
CREATE OR REPLACE FUNCTION machines_at_once(
    p_pools text[], p_kinds text[], p_commands jsonb[], OUT refusals text[], OUT ids uuid[], OUT machines integer[])
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the database was migrated at this moment' USING ERRCODE = 'serialization_failure', HINT = 'Try again.';
END $$;

CREATE OR REPLACE FUNCTION open_requests(
    p_ids uuid[], p_machines integer[], p_emails text[], p_pools text[], p_kinds text[], p_commands jsonb[], p_summaries text[],
    p_tokens_sha256 bytea[], p_token_salts bytea[], p_idempotency_sha256 bytea[], p_requests_sha256 bytea[],
    OUT leases bigint, OUT waiting bigint, OUT epoch bigint) LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the database was migrated at this moment' USING ERRCODE = 'serialization_failure', HINT = 'Try again.';
END $$;

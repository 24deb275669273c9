-- The rules of leases: what a change may be (guard), and what follows from it.

-- Refuses what a lease cannot become, blots out secrets, and stamps the time of each step. Whoever is lent a machine as they ask
-- brings the times along. It pins no search_path, which takes as long as the rest of what happens most.
CREATE OR REPLACE FUNCTION guard_lease() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        NEW := public.changed_lease(OLD, NEW);
    END IF;
    IF TG_OP = 'INSERT' AND (NEW.moves > 0 OR NEW.passed_over OR NEW.left_seconds IS NOT NULL OR NEW.claimed_at IS NOT NULL) THEN
        NEW.moves := 0;
        NEW.passed_over := false;
        NEW.left_seconds := NULL;
        NEW.claimed_at := NULL;
    END IF;
    IF public.has_to_be_blotted(NEW.crd_command)
       AND (TG_OP = 'INSERT' OR NEW.crd_command IS DISTINCT FROM OLD.crd_command) THEN
        NEW.crd_command := public.harmless(public.blot_out(NEW.crd_command));
    END IF;
    IF TG_OP = 'INSERT' AND (
           NEW.status = 'assigned' AND NEW.assigned_at = public.clock() AND NEW.deadline > public.clock()
           AND NEW.expires_at > public.clock() AND isfinite(NEW.deadline) AND isfinite(NEW.expires_at)) IS NOT TRUE
       OR TG_OP = 'UPDATE' AND (NEW.status <> OLD.status OR NEW.status = 'assigned' AND NEW.needs_line <> OLD.needs_line) THEN
        NEW := public.stamp_lease(NEW);
    END IF;
    RETURN NEW;
END $$;

-- The new row, one version on, unless the change is none that there is, or one of what identifies a lease.
CREATE OR REPLACE FUNCTION changed_lease(old leases, new leases) RETURNS leases LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF NOT old.live THEN
        RAISE EXCEPTION 'lease % is %; it never changes again', old.id, old.status
            USING ERRCODE = 'LL003', HINT = 'Reach those that are not over: UPDATE leases SET … WHERE live AND …';
    ELSIF new.status <> old.status AND (new.vm_id IS NULL AND new.status = 'assigned' OR NOT EXISTS (
        SELECT FROM lease_transitions WHERE from_status = old.status AND to_status = new.status)) THEN
        RAISE EXCEPTION 'lease % is %; it cannot become % here', old.id, old.status, new.status
            USING ERRCODE = 'LL003', HINT = next_for_lease(old);
    ELSIF new.status = 'failed' AND new.failure IS NULL THEN
        RAISE EXCEPTION 'a lease that failed says why' USING ERRCODE = 'LL003', HINT = next_for_lease(old);
    ELSIF old.vm_id IS NOT NULL AND new.status = 'queued' THEN
        new := without_machine(new, old.status);
    ELSIF (new.id, new.email, new.pool, new.place, new.created_at)
          IS DISTINCT FROM (old.id, old.email, old.pool, old.place, old.created_at)
          OR new.kind <> old.kind AND NOT (old.kind = 'typed' AND new.kind IN ('desktop', 'job'))
          OR (new.command IS DISTINCT FROM old.command OR old.vm_id IS NOT NULL
              AND (new.vm_id, new.hostname, new.epoch) IS DISTINCT FROM (old.vm_id, old.hostname, old.epoch))
             AND NOT begins_anew(old, new) THEN
        RAISE EXCEPTION 'lease % keeps its person, pool, kind, command, machine and place', old.id
            USING ERRCODE = 'LL003', HINT = 'End it and open another one.';
    END IF;
    new.passed_over := new.passed_over AND new.status = 'queued' AND new.needs_line;
    IF new.status = 'assigned' THEN  -- what is lent is counted, whatever assigned_at becomes
        new.turn_at := CASE WHEN old.vm_id IS NOT NULL THEN coalesce(old.turn_at, old.assigned_at) WHEN old.assigned_at IS NOT NULL THEN clock() END;
    END IF;
    new.version := old.version + 1;
    new.deadline := CASE WHEN new.status <> 'active' THEN new.deadline END;
    RETURN new;
END $$;

-- Whether blot_out or harmless can find anything in the line: so that they, which take far longer, need not look.
CREATE OR REPLACE FUNCTION has_to_be_blotted(p_line text) RETURNS boolean LANGUAGE sql IMMUTABLE
RETURN p_line !~ '^[ -~]*$' OR strpos(p_line, '4/') > 0
    OR strpos(lower(p_line COLLATE "C"), 'code') > 0 OR strpos(lower(p_line COLLATE "C"), 'pin') > 0;

-- The hint at what an admin can do with a lease that is live.
CREATE OR REPLACE FUNCTION next_for_lease(lease leases) RETURNS text LANGUAGE sql IMMUTABLE
RETURN format('End it with: UPDATE leases SET status = %L WHERE id = %L',
              CASE lease.status WHEN 'active' THEN 'ended' ELSE 'cancelled' END, lease.id)
    || CASE lease.status WHEN 'queued' THEN
           format('; give it a machine: UPDATE vms SET status = ''in-use'', lease_id = %L WHERE hostname = …', lease.id)
       ELSE '' END;

-- When the step that `status` names began, and when it must be over.
CREATE OR REPLACE FUNCTION stamp_lease(lease leases) RETURNS leases LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    this pools;
BEGIN
    SELECT * INTO this FROM pools WHERE name = lease.pool;
    IF NOT FOUND THEN
        PERFORM pool_named(lease.pool);  -- which refuses, and says which there are
    END IF;
    lease.deadline := clock() + make_interval(secs => CASE lease.status
        WHEN 'queued' THEN this.queue_seconds
        WHEN 'assigned' THEN CASE WHEN lease.needs_line THEN this.keep_seconds ELSE this.claim_seconds END
        WHEN 'claimed' THEN this.command_seconds + 30.0 END);
    CASE lease.status
        WHEN 'queued' THEN  -- those that are typed in psql know no group
            lease.group_name := coalesce(lease.group_name, CASE WHEN session_user = current_user THEN group_of(lease.email) END);
        WHEN 'assigned' THEN
            IF lease.claimed_at IS NULL THEN
                lease.assigned_at := CASE WHEN lease.moves > 0 THEN lease.assigned_at ELSE clock() END;
                lease.expires_at := clock() + make_interval(secs => coalesce(lease.left_seconds, this.lease_seconds));
            END IF;
        WHEN 'claimed' THEN
            lease.claimed_at := clock();
        WHEN 'active' THEN
            lease.active_at := clock();
            lease.assigned_at := coalesce(lease.assigned_at, clock());
        ELSE
            lease.ended_at := clock();
    END CASE;
    IF lease.status IN ('assigned', 'claimed') THEN  -- whoever never gets ready, line after line, has the machine no longer than others
        lease.deadline := least(lease.deadline, lease.expires_at);
    END IF;
    RETURN lease;
END $$;

CREATE OR REPLACE TRIGGER lease_guard_trigger BEFORE INSERT OR UPDATE ON leases
    FOR EACH ROW EXECUTE FUNCTION guard_lease();

-- A live lease cannot be deleted from under its person and machine.
CREATE OR REPLACE FUNCTION guard_lease_delete() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF OLD.live THEN
        RAISE EXCEPTION 'lease % is %, so its person counts on it', OLD.id, OLD.status USING ERRCODE = 'LL003',
            HINT = next_for_lease(OLD) || '; those that are over can go: DELETE FROM leases WHERE NOT live';
    END IF;
    RETURN OLD;
END $$;

CREATE OR REPLACE TRIGGER lease_guard_delete_trigger BEFORE DELETE ON leases
    FOR EACH ROW EXECUTE FUNCTION guard_lease_delete();

CREATE OR REPLACE TRIGGER lease_guard_truncate_trigger BEFORE TRUNCATE ON leases
    FOR EACH STATEMENT EXECUTE FUNCTION delete_before_truncate();

-- Whether the last three leases of this machine failed or left it by its own doing, and not one person's only. A wrong code or
-- command is not its doing; whoever gave up says nothing about it; and after it was failed it begins anew.
CREATE OR REPLACE FUNCTION keeps_failing(p_vm integer) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT count(*) = 3 AND count(DISTINCT lower(l.email)) > 1 FROM (
        SELECT e.kind, e.lease_id, coalesce(e.detail ->> 'failure', e.detail ->> 'trouble') AS why FROM public.events e
        WHERE e.vm_id = p_vm AND e.hostname = (SELECT v.hostname FROM public.vms v WHERE v.id = p_vm)
          AND (e.kind IN ('lease.ended', 'lease.failed', 'vm.failed')
               OR e.kind IN ('lease.assigned', 'lease.queued') AND e.detail ? 'trouble'
                  AND NOT e.detail ? 'passed_over' AND e.detail ->> 'from' <> 'queued')
        ORDER BY e.id DESC LIMIT 3) AS last
    JOIN public.leases l ON l.id = last.lease_id
    WHERE last.kind <> 'lease.ended' AND last.why IN (
        'command-failed', 'timed-out', 'not-installed', 'unknown', 'deadline', 'database-restored');
END;

-- The machines of leases that are over are cleaned, or failed when they keep failing: such a one would eat the queue.
CREATE OR REPLACE FUNCTION take_back(p_over uuid[], p_failed uuid[]) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM vms WHERE lease_id = ANY (p_failed) AND keeps_failing(id)) THEN
        UPDATE vms SET status = 'failed', reason = 'unhealthy: three leases in a row failed on it'
        WHERE lease_id = ANY (p_failed) AND keeps_failing(id);
    END IF;
    IF EXISTS (SELECT FROM vms WHERE lease_id = ANY (p_over)) THEN
        UPDATE vms SET status = 'cleaning' WHERE lease_id = ANY (p_over);
    END IF;
END $$;

-- After leases were added: the machine of each names it too, and the history grows.
CREATE OR REPLACE FUNCTION follow_new_leases() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    odd   uuid[];
    hints text[];
    who   text := actor();
BEGIN
    INSERT INTO events (actor, kind, vm_id, hostname, lease_id, detail)
    SELECT who, 'lease.' || n.status, n.vm_id, n.hostname, n.id,
           jsonb_strip_nulls(jsonb_build_object('kind', n.kind, 'epoch', n.epoch)) FROM new_rows n;
    SELECT array_agg(n.id) FILTER (WHERE n.live AND n.vm_id IS NOT NULL AND NOT coalesce(
               (SELECT (v.lease_id, v.epoch, v.hostname) = (n.id, n.epoch, n.hostname) FROM vms v WHERE v.id = n.vm_id), false)),
           array_agg(lease_hint(n.id, n.status, n.kind))
    INTO odd, hints FROM new_rows n;
    IF odd IS NOT NULL THEN
        PERFORM refuse_disagreement(odd);
    END IF;
    PERFORM send_hints('lease_updates', hints);
    RETURN NULL;
END $$;

-- After leases were changed: the history grows, and what follows is done.
CREATE OR REPLACE FUNCTION follow_leases() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    these record;
    who   text := actor();
BEGIN
    SELECT array_agg(n.id) FILTER (WHERE NOT n.live) AS over, array_agg(n.id) FILTER (WHERE n.status = 'failed') AS failed,
           array_agg(n.id) FILTER (WHERE NOT n.live OR n.started_at IS NOT NULL OR n.needs_line) AS without_code,
           array_agg(n.id) FILTER (WHERE n.live AND n.vm_id IS NOT NULL AND NOT coalesce(
               (SELECT (v.lease_id, v.epoch, v.hostname) = (n.id, n.epoch, n.hostname) FROM vms v WHERE v.id = n.vm_id), false)) AS odd,
           array_agg(n.id) FILTER (WHERE n.status = 'queued' AND (n.moves > 0 OR n.passed_over)) AS moved,
           array_agg(lease_hint(n.id, n.status, n.kind)) AS hints
    INTO these FROM new_rows n;
    IF these.odd IS NOT NULL THEN
        PERFORM refuse_disagreement(these.odd);
    END IF;
    INSERT INTO events (actor, kind, vm_id, hostname, lease_id, detail)
    SELECT who, 'lease.' || n.status, coalesce(n.vm_id, o.vm_id), coalesce(n.hostname, o.hostname), n.id,
           jsonb_strip_nulls(jsonb_build_object(
               'from', o.status, 'epoch', n.epoch, 'exit_code', n.exit_code, 'failure', n.failure,
               'trouble', CASE WHEN n.needs_line OR n.moves > o.moves THEN n.trouble END, 'needs_line', nullif(n.needs_line, o.needs_line),
               'passed_over', nullif(n.passed_over, false), 'left_idle', nullif(n.left_idle, false)))
    FROM new_rows n FULL JOIN old_rows o ON o.id = n.id
    WHERE (n.status, n.exit_code, n.needs_line) IS DISTINCT FROM (o.status, o.exit_code, o.needs_line);
    PERFORM settle_leases(these.over, these.failed, these.without_code, these.moved);
    PERFORM send_hints('lease_updates', these.hints);
    RETURN NULL;
END $$;

-- Secrets that were used or are useless go, machines whose lease is over are cleaned, and leases without a machine get another.
CREATE OR REPLACE FUNCTION settle_leases(p_over uuid[], p_failed uuid[], p_without_code uuid[], p_moved uuid[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_without_code IS NOT NULL THEN
        DELETE FROM public.lease_secrets WHERE lease_id = ANY (p_without_code);
    END IF;
    IF p_over IS NOT NULL THEN
        PERFORM public.take_back(p_over, p_failed);
    END IF;
    IF p_moved IS NOT NULL THEN
        PERFORM public.move_leases(p_moved);
    END IF;
END $$;

CREATE OR REPLACE TRIGGER lease_follow_update_trigger AFTER UPDATE ON leases
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION follow_leases();
CREATE OR REPLACE TRIGGER lease_follow_insert_trigger AFTER INSERT ON leases
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION follow_new_leases();

-- After leases were deleted: the history says who did it, and keeps what became of them.
CREATE OR REPLACE FUNCTION forget_leases() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    INSERT INTO events (actor, kind, vm_id, hostname, lease_id, detail)
    SELECT actor(), 'lease.deleted', o.vm_id, o.hostname, o.id, jsonb_build_object('from', o.status) FROM old_rows o;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER lease_forget_trigger AFTER DELETE ON leases
    REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION forget_leases();

-- Tells whoever typed a statement how far it reached, when that was a machine or further than one lease.
CREATE OR REPLACE FUNCTION tell_leases() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    changed bigint;
    freed   bigint;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        SELECT count(*), count(n.vm_id) INTO changed, freed
        FROM old_rows o FULL JOIN new_rows n ON n.id = o.id
        WHERE (o.live, n.live) IS NOT DISTINCT FROM (true, false);  -- which keeps the join full: see follow_vms
    ELSE
        SELECT count(*) INTO changed FROM old_rows;
    END IF;
    IF changed > 1 OR freed > 0 THEN
        RAISE NOTICE '%', CASE TG_OP
            WHEN 'UPDATE' THEN format('over: %s; cleaned now: %s', counted(changed, 'lease'), counted(freed, 'machine'))
            ELSE format('deleted: %s; the history keeps what became of them', counted(changed, 'lease')) END;
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER lease_tell_update_trigger AFTER UPDATE ON leases
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT WHEN (session_user = current_user AND pg_trigger_depth() = 0) EXECUTE FUNCTION tell_leases();
CREATE OR REPLACE TRIGGER lease_tell_delete_trigger AFTER DELETE ON leases
    REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT WHEN (session_user = current_user) EXECUTE FUNCTION tell_leases();

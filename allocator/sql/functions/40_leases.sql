-- The rules of leases: what a change may be (guard), what follows from it, and how machines open and close them.

-- Checks the transition, keeps what identifies a lease, and stamps the time of each step.
CREATE OR REPLACE FUNCTION guard_lease() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NOT OLD.live THEN
            RAISE EXCEPTION 'lease % is %; it never changes again', OLD.id, OLD.status
                USING ERRCODE = 'LL003', HINT = 'Reach those that are not over: UPDATE leases SET … WHERE live AND …';
        ELSIF NEW.status <> OLD.status AND (NEW.vm_id IS NULL AND NEW.status = 'assigned' OR NOT EXISTS (
            SELECT FROM lease_transitions WHERE from_status = OLD.status AND to_status = NEW.status)) THEN
            RAISE EXCEPTION 'lease % is %; it cannot become % here', OLD.id, OLD.status, NEW.status
                USING ERRCODE = 'LL003', HINT = next_for_lease(OLD);
        ELSIF NEW.status = 'failed' AND NEW.failure IS NULL THEN
            RAISE EXCEPTION 'a lease that failed says why' USING ERRCODE = 'LL003', HINT = next_for_lease(OLD);
        ELSIF (NEW.id, NEW.email, NEW.pool, NEW.command, NEW.place, NEW.created_at)
              IS DISTINCT FROM (OLD.id, OLD.email, OLD.pool, OLD.command, OLD.place, OLD.created_at)
              OR NEW.kind <> OLD.kind AND NOT (OLD.kind = 'typed' AND NEW.kind IN ('desktop', 'job'))
              OR OLD.vm_id IS NOT NULL
                 AND (NEW.vm_id, NEW.hostname, NEW.epoch) IS DISTINCT FROM (OLD.vm_id, OLD.hostname, OLD.epoch) THEN
            RAISE EXCEPTION 'lease % keeps its person, pool, kind, command, machine and place', OLD.id
                USING ERRCODE = 'LL003', HINT = 'End it and open another one.';
        END IF;
        NEW.version := OLD.version + 1;
        NEW.deadline := CASE WHEN NEW.status <> 'active' THEN NEW.deadline END;
    END IF;
    IF has_to_be_blotted(NEW.crd_command)
       AND (TG_OP = 'INSERT' OR NEW.crd_command IS DISTINCT FROM OLD.crd_command) THEN
        NEW.crd_command := harmless(blot_out(NEW.crd_command));
    END IF;
    IF TG_OP = 'INSERT' AND (NEW.status = 'assigned' AND NEW.assigned_at = clock() AND NEW.deadline > clock()
                             AND NEW.expires_at > clock() AND isfinite(NEW.deadline) AND isfinite(NEW.expires_at)) IS NOT TRUE
       OR TG_OP = 'UPDATE' AND NEW.status <> OLD.status THEN
        NEW := stamp_lease(NEW);
    END IF;
    RETURN NEW;
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
    lease.deadline := NULL;
    CASE lease.status
        WHEN 'queued' THEN
            lease.deadline := clock() + make_interval(secs => this.queue_seconds);
        WHEN 'assigned' THEN
            lease.assigned_at := clock();
            lease.deadline := clock() + make_interval(secs => this.claim_seconds);
            lease.expires_at := clock() + make_interval(secs => this.lease_seconds);
        WHEN 'claimed' THEN
            lease.claimed_at := clock();
            lease.deadline := clock() + make_interval(secs => this.command_seconds + 30);
        WHEN 'active' THEN
            lease.active_at := clock();
            lease.assigned_at := coalesce(lease.assigned_at, clock());
        ELSE
            lease.ended_at := clock();
    END CASE;
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

-- Whether the last three leases of this machine failed by its own doing, and not one person's only. A wrong code or command
-- is not its doing; whoever gave up says nothing about it; and after it was failed it begins anew.
CREATE OR REPLACE FUNCTION keeps_failing(p_vm integer) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT count(*) = 3 AND count(DISTINCT lower(l.email)) > 1 FROM (
        SELECT e.kind, e.lease_id FROM public.events e
        WHERE e.vm_id = p_vm AND e.kind IN ('lease.ended', 'lease.failed', 'vm.failed') ORDER BY e.id DESC LIMIT 3) AS last
    JOIN public.leases l ON l.id = last.lease_id
    WHERE last.kind = 'lease.failed' AND l.failure IN (
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
               (SELECT (v.lease_id, v.epoch, v.hostname) = (n.id, n.epoch, n.hostname) FROM vms v WHERE v.id = n.vm_id), false)), array_agg(lease_hint(n.id, n.status, n.kind)) INTO odd, hints
    FROM new_rows n;
    IF odd IS NOT NULL THEN
        PERFORM refuse_disagreement(odd);
    END IF;
    PERFORM send_hints('lease_updates', hints);
    RETURN NULL;
END $$;

-- After leases were changed: secrets that were used or are useless go, machines whose lease ended are cleaned, the history grows.
CREATE OR REPLACE FUNCTION follow_leases() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    over      uuid[];
    failed    uuid[];
    delivered uuid[];
    odd       uuid[];
    hints     text[];
    who       text := actor();
BEGIN
    SELECT array_agg(n.id) FILTER (WHERE NOT n.live), array_agg(n.id) FILTER (WHERE n.status = 'failed'),
           array_agg(n.id) FILTER (WHERE NOT n.live OR n.started_at IS NOT NULL),
           array_agg(n.id) FILTER (WHERE n.live AND n.vm_id IS NOT NULL AND NOT coalesce(
               (SELECT (v.lease_id, v.epoch, v.hostname) = (n.id, n.epoch, n.hostname) FROM vms v WHERE v.id = n.vm_id), false)), array_agg(lease_hint(n.id, n.status, n.kind))
    INTO over, failed, delivered, odd, hints FROM new_rows n;
    IF delivered IS NOT NULL THEN
        DELETE FROM lease_secrets WHERE lease_id = ANY (delivered);
    END IF;
    IF odd IS NOT NULL THEN
        PERFORM refuse_disagreement(odd);
    END IF;
    INSERT INTO events (actor, kind, vm_id, hostname, lease_id, detail)
    SELECT who, 'lease.' || n.status, n.vm_id, n.hostname, n.id, jsonb_strip_nulls(jsonb_build_object(
               'from', o.status, 'epoch', n.epoch, 'exit_code', n.exit_code, 'failure', n.failure))
    FROM new_rows n FULL JOIN old_rows o ON o.id = n.id
    WHERE (n.status, n.exit_code) IS DISTINCT FROM (o.status, o.exit_code);
    IF over IS NOT NULL THEN
        PERFORM take_back(over, failed);
    END IF;
    PERFORM send_hints('lease_updates', hints);
    RETURN NULL;
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

-- A lease on a machine and that machine's row must name each other, with the same epoch.
CREATE OR REPLACE FUNCTION refuse_disagreement(p_leases uuid[]) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    odd leases;
BEGIN
    SELECT l.* INTO odd FROM leases l LEFT JOIN vms v
        ON v.lease_id = l.id AND (v.id, v.epoch, v.hostname) = (l.vm_id, l.epoch, l.hostname)
    WHERE l.id = ANY (p_leases) AND v.id IS NULL AND l.live LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'lease % says it holds %, but that machine is not lent to it', odd.id, odd.hostname
            USING ERRCODE = 'LL003',
            HINT = 'Change the machine, the lease follows: UPDATE vms SET status = ''in-use'', lease_id = … WHERE hostname = …';
    END IF;
END $$;

-- Machines p_vms are lent now: their queued leases become assigned; where somebody lent one by hand, a lease is opened. Refuses
-- a machine of which its lease says something else: whoever names the next epoch in the UPDATE is not corrected by guard_vm.
CREATE OR REPLACE FUNCTION open_leases(p_vms integer[]) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    served integer;
    odd    text;
BEGIN
    IF p_vms IS NULL THEN
        RETURN;
    END IF;
    UPDATE leases l SET status = 'assigned', vm_id = v.id, hostname = v.hostname, epoch = v.epoch
    FROM vms v WHERE v.id = ANY (p_vms) AND l.id = v.lease_id AND l.status = 'queued';
    GET DIAGNOSTICS served = ROW_COUNT;
    IF served < cardinality(p_vms) THEN
        PERFORM open_leases_by_hand(p_vms);
    END IF;
    SELECT v.hostname INTO odd FROM vms v LEFT JOIN leases l
        ON l.live AND l.id = v.lease_id AND l.vm_id = v.id AND l.epoch = v.epoch AND l.email = coalesce(v.email, l.email)
        AND (l.crd_command IS NOT DISTINCT FROM v.crd_command
             OR EXISTS (SELECT FROM lease_secrets s WHERE s.lease_id = l.id AND blot_out(s.line) = v.crd_command))
    WHERE v.id = ANY (p_vms) AND l.id IS NULL LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'VM % cannot be lent so: its lease says something else', odd USING ERRCODE = 'LL003',
            HINT = 'Leave the epoch out of the UPDATE; it rises by itself, and the rest follows from the lease.';
    END IF;
END $$;

-- The program that a typed line starts. Only a client parses the whole line; this is for a word to whoever typed it.
CREATE OR REPLACE FUNCTION program_of(p_line text) RETURNS text LANGUAGE sql IMMUTABLE
RETURN (regexp_match(p_line, '^\s*(?:[A-Za-z_]\w*=\S*\s+)*(?:\S*/)?(\S+)'))[1];

-- Says of machines lent with a command that their pool does not run it: they will refuse it in a moment.
CREATE OR REPLACE FUNCTION say_what_is_not_run(p_vms integer[]) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    said text;
BEGIN
    FOR said IN
        SELECT DISTINCT format('The pool %s does not run %s, so this lease will fail. It runs: %s', p.name, program_of(v.crd_command),
                               array_to_string(p.programs || CASE WHEN p.accepts_desktop THEN 'start-host' END, ', '))
        FROM vms v JOIN pools p ON p.name = v.pool
        WHERE v.id = ANY (p_vms) AND program_of(v.crd_command) <> ALL (p.programs)
          AND NOT (p.accepts_desktop AND program_of(v.crd_command) = 'start-host')
        LIMIT 3
    LOOP
        RAISE NOTICE '%', said;
    END LOOP;
END $$;

-- The part of open_leases for machines that somebody lent in psql: without a lease_id, or with one that is nobody's.
CREATE OR REPLACE FUNCTION open_leases_by_hand(p_vms integer[]) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    INSERT INTO leases (id, email, status, pool, kind, crd_command, vm_id, hostname, epoch, assigned_at)
    SELECT v.lease_id, coalesce(v.email, session_user), CASE WHEN v.crd_command IS NULL THEN 'active' ELSE 'assigned' END,
           v.pool, CASE WHEN v.crd_command IS NULL THEN 'hold' ELSE 'typed' END, v.crd_command, v.id, v.hostname, v.epoch, clock()
    FROM vms v WHERE v.id = ANY (p_vms) AND NOT EXISTS (SELECT FROM leases own WHERE own.id = v.lease_id);
    INSERT INTO lease_secrets (lease_id, line)
    SELECT v.lease_id, v.crd_command FROM vms v JOIN leases own ON own.id = v.lease_id AND own.kind = 'typed' AND own.live
    WHERE v.id = ANY (p_vms) ON CONFLICT DO NOTHING;
    PERFORM say_what_is_not_run(p_vms);
EXCEPTION WHEN unique_violation THEN
    RAISE EXCEPTION 'this person has a live lease already' USING ERRCODE = 'LL003',
        HINT = 'End it first, or give that lease the machine: UPDATE vms SET status = ''in-use'', lease_id = …';
END $$;

-- Machines left these leases and became p_vm_status: whoever was active is done, who was not yet is told why.
CREATE OR REPLACE FUNCTION close_leases(p_leases uuid[], p_vm_status text, p_reason text) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    why text := CASE WHEN p_vm_status = 'failed' AND p_reason = 'lost' THEN 'lost'
                     WHEN p_vm_status = 'failed' THEN 'vm-failed'
                     WHEN p_vm_status IN ('retired', 'deleted') THEN 'vm-deleted' END;
BEGIN
    IF NOT EXISTS (SELECT FROM leases WHERE id = ANY (p_leases) AND live) THEN
        RETURN;
    END IF;
    UPDATE leases SET failure = why,
           status = CASE WHEN why IS NOT NULL THEN 'failed' WHEN status = 'active' THEN 'ended' ELSE 'cancelled' END
    WHERE id = ANY (p_leases) AND live;
END $$;

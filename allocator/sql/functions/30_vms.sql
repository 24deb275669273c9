-- The rules of vms: what a change may be (guard, row by row) and what follows from it (once a statement).
-- They hold for every writer, so an UPDATE typed in psql does all that the web page would have done.

-- The new row, unless it does what no UPDATE may do: lower the epoch, say for the client that it wiped, or swap the person while
-- the machine is lent.
CREATE OR REPLACE FUNCTION in_custody(old vms, new vms) RETURNS vms LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF new.epoch < old.epoch OR new.epoch > greatest(old.epoch + 1, highest_epoch())
          OR new.epoch <> old.epoch AND new.status = old.status AND old.status IN ('available', 'in-use')
             AND NOT serves_anew(old, new) THEN
        RAISE EXCEPTION 'the epoch of % cannot go from % to %', old.hostname, old.epoch, new.epoch
            USING ERRCODE = 'LL003', HINT = 'It fences the machine''s client; leave it out of the UPDATE.';
    ELSIF new.cleaned_epoch <> old.cleaned_epoch
          AND (old.status, new.status, new.cleaned_epoch) <> ('cleaning', 'available', old.epoch) THEN
        RAISE EXCEPTION 'cleaned_epoch of % is what its client confirmed', old.hostname USING ERRCODE = 'LL003',
            HINT = 'Say that it is clean: SET status = ''available'', cleaned_epoch = epoch WHERE status = ''cleaning'' AND …';
    ELSIF new.status = old.status AND (new.email, new.crd_command, new.lease_id)
                     IS DISTINCT FROM (old.email, old.crd_command, old.lease_id) AND NOT serves_anew(old, new) THEN
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

-- Turns what was asked into what may happen, or refuses it with a HINT. It pins no search_path: that takes as long as the rest
-- of what happens most.
CREATE OR REPLACE FUNCTION guard_vm() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status = 'available' AND NEW.status = 'in-use' AND NEW.epoch = OLD.epoch + 1 AND NEW.cleaned_epoch = OLD.cleaned_epoch
       AND NEW.updated_at = public.clock() AND num_nulls(NEW.lease_id, NEW.email) = 0 AND NEW.reason IS NULL THEN
        RETURN NEW;  -- lent: nothing to refuse or to fill in; open_leases refuses what the lease does not say as well
    END IF;
    RETURN public.changed_vm(OLD, NEW);
END $$;

-- The new row with what follows from the change.
CREATE OR REPLACE FUNCTION changed_vm(old vms, new vms) RETURNS vms LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    rule text := '=';
BEGIN
    new := in_custody(old, new);
    IF new.status = 'available' AND old.status IN ('booting', 'in-use', 'failed', 'cleaning')
       AND new.cleaned_epoch <> old.epoch THEN
        new.status := 'cleaning';
        PERFORM say_once('a machine that was lent or failed is cleaned first, then it becomes available by itself');
    END IF;
    IF new.status IS DISTINCT FROM old.status THEN
        SELECT epoch_rule INTO rule FROM vm_transitions WHERE from_status = old.status AND to_status = new.status;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'VM % is %; it cannot become %', old.hostname, old.status, coalesce(new.status, 'NULL')
                USING ERRCODE = 'LL003', HINT = replace(next_statuses(old.status), 'HOSTNAME', old.hostname);
        END IF;
        new.epoch := CASE WHEN rule = '+' AND new.epoch = old.epoch THEN old.epoch + 1 ELSE new.epoch END;
    END IF;
    new := settle_vm(new, new.status <> old.status);
    IF new IS DISTINCT FROM old THEN
        new.updated_at := clock();
    END IF;
    RETURN new;
END $$;

-- The same for a new row. Whoever is lent a machine so gets a new lease, at its first epoch or a later one.
CREATE OR REPLACE FUNCTION guard_new_vm() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF NEW.epoch NOT BETWEEN 0 AND highest_epoch() OR NEW.cleaned_epoch > NEW.epoch
       OR NEW.status = 'available' AND NEW.cleaned_epoch <> NEW.epoch THEN
        RAISE EXCEPTION 'no new machine is at epoch % and was cleaned at %', NEW.epoch, NEW.cleaned_epoch
            USING ERRCODE = 'LL003', HINT = 'Leave epoch and cleaned_epoch out of the INSERT.';
    ELSIF NEW.reason IS NOT NULL AND NEW.status <> 'failed'
          OR coalesce(NEW.email, NEW.crd_command) IS NOT NULL AND NEW.status <> 'in-use' THEN
        RAISE EXCEPTION 'a new machine that is % would keep neither reason nor person', NEW.status USING ERRCODE = 'LL003',
            HINT = 'Leave them out; or the status is failed with a reason, in-use with email and crd_command.';
    ELSIF NOT EXISTS (SELECT FROM vm_transitions WHERE from_status = NEW.status) THEN
        RAISE EXCEPTION 'there is no status %', NEW.status USING ERRCODE = 'LL003', HINT = (
            SELECT 'A machine is one of: ' || string_agg(DISTINCT from_status, ', ') FROM vm_transitions);
    END IF;
    NEW.epoch := CASE WHEN NEW.status = 'in-use' THEN greatest(NEW.epoch, 1) ELSE NEW.epoch END;
    NEW.lease_id := NULL;
    RETURN settle_vm(NEW, true);
END $$;

-- Whether the machine goes on with what the holder of its lease was asked for, or with its job: see renew_line and start_again.
CREATE OR REPLACE FUNCTION serves_anew(was vms, vm vms) RETURNS boolean LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    RETURN (vm.status, vm.epoch, vm.email, vm.lease_id) = ('in-use', was.epoch + 1, was.email, was.lease_id)
        AND EXISTS (SELECT FROM leases l WHERE l.id = was.lease_id AND (l.needs_line OR l.kind = 'job' OR l.epoch = vm.epoch));
END $$;

-- Who the machine is: its name never changes, its role only with enrolment and once the role is dropped. Such a row is
-- the machine's only by this role, and everything else that knows the machine knows it by this name.
CREATE OR REPLACE FUNCTION guard_vm_identity() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND (NEW.id, NEW.hostname) IS DISTINCT FROM (OLD.id, OLD.hostname) THEN
        RAISE EXCEPTION 'VM % keeps its id and its name', OLD.hostname USING ERRCODE = 'LL003',
            HINT = 'Invite the machine under its new name (lablink vms invite HOSTNAME), then delete this row.';
    ELSIF NEW.role IS DISTINCT FROM OLD.role AND NOT (
            NEW.role IS NULL AND NOT EXISTS (SELECT FROM vm_roles WHERE role = OLD.role)
            OR (TG_OP = 'INSERT' OR (OLD.status, NEW.status) = ('retired', 'booting'))
               AND EXISTS (SELECT FROM vm_roles WHERE role = NEW.role)) THEN
        RAISE EXCEPTION 'the role of VM % is made when it enrols and dropped after it is retired', NEW.hostname
            USING ERRCODE = 'LL003', HINT = 'Give it a new one with: lablink vms invite HOSTNAME. '
                'Cut it off with: UPDATE vms SET status = ''retired'' WHERE hostname = …';
    END IF;
    RETURN NEW;
END $$;

-- A pool that there is; the hint names those.
CREATE OR REPLACE FUNCTION guard_vm_pool() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM pool_named(NEW.pool);
    RETURN NEW;
END $$;

-- The hint at what else a machine can become, in the words that an admin may use for it.
CREATE OR REPLACE FUNCTION next_statuses(p_status text) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT CASE p_status WHEN 'retired' THEN 'Invite the machine again: lablink vms invite HOSTNAME.'
        WHEN 'available' THEN format('From available it can become: %s.', string_agg(to_status, ', ' ORDER BY to_status))
        ELSE format('From %s it can become: available (it is cleaned first), %s.', p_status,
                    string_agg(to_status, ', ' ORDER BY to_status) FILTER (WHERE to_status <> 'available')) END
    FROM public.vm_transitions WHERE from_status = p_status;
END;

-- The reason of a machine that a person took out of service: who it was, and their words if they gave some. Nobody's
-- words stand alone, so that they are never taken for the sweep's 'lost', which the next hello undoes.
CREATE OR REPLACE FUNCTION held_by(p_words text) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT format('held by %s', public.actor()) || coalesce(': ' || nullif(btrim(p_words), ''), '');
END;

-- Fills in what the status implies: a reason for failed, nobody for all but in-use, and for in-use a lease: the one that
-- was named, with its person and command, or a new one.
CREATE OR REPLACE FUNCTION settle_vm(vm vms, p_entered boolean) RETURNS vms LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    lease leases;
BEGIN
    vm.reason := CASE WHEN vm.status = 'failed' THEN CASE
        WHEN vm.reason = 'lost' OR vm.reason ~ '^(unhealthy: |held by )' THEN vm.reason ELSE held_by(vm.reason) END END;
    IF vm.status <> 'in-use' THEN
        vm.email := NULL;
        vm.crd_command := NULL;
        vm.lease_id := NULL;
    ELSIF p_entered THEN
        SELECT * INTO lease FROM leases WHERE id = vm.lease_id;
        IF FOUND OR EXISTS (SELECT FROM vms WHERE lease_id = vm.lease_id) THEN
            RETURN lend_to(vm, lease);
        END IF;
        vm.lease_id := coalesce(vm.lease_id, gen_random_uuid());
        IF vm.crd_command IS NOT NULL THEN
            INSERT INTO lease_secrets (lease_id, line) VALUES (vm.lease_id, vm.crd_command);
            vm.crd_command := blot_out(vm.crd_command);
        END IF;
    END IF;
    RETURN vm;
END $$;

-- The machine with the person and command of a lease that waits. Refuses any other: it has a machine, or is over.
CREATE OR REPLACE FUNCTION lend_to(vm vms, lease leases) RETURNS vms LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF lease.status IS DISTINCT FROM 'queued' OR EXISTS (SELECT FROM vms WHERE lease_id = vm.lease_id) THEN
        RAISE EXCEPTION 'VM % cannot be lent to lease %, which % already', vm.hostname, vm.lease_id,
            CASE WHEN lease.live IS DISTINCT FROM false THEN 'has a machine' ELSE 'is ' || lease.status END
            USING ERRCODE = 'LL003', HINT = 'Only a queued lease can be given a machine; leave lease_id out to open a new one.';
    END IF;
    vm.email := lease.email;
    vm.crd_command := lease.crd_command;
    RETURN vm;
END $$;

-- They fire in the order of their names.
CREATE OR REPLACE TRIGGER vm_guard_insert_trigger BEFORE INSERT ON vms
    FOR EACH ROW EXECUTE FUNCTION guard_new_vm();
CREATE OR REPLACE TRIGGER vm_guard_trigger BEFORE UPDATE ON vms
    FOR EACH ROW EXECUTE FUNCTION guard_vm();
CREATE OR REPLACE TRIGGER vm_identity_insert_trigger BEFORE INSERT ON vms
    FOR EACH ROW WHEN (NEW.role IS NOT NULL) EXECUTE FUNCTION guard_vm_identity();
CREATE OR REPLACE TRIGGER vm_identity_update_trigger BEFORE UPDATE OF id, hostname, role ON vms
    FOR EACH ROW WHEN ((NEW.id, NEW.hostname, NEW.role) IS DISTINCT FROM (OLD.id, OLD.hostname, OLD.role))
    EXECUTE FUNCTION guard_vm_identity();
CREATE OR REPLACE TRIGGER vm_pool_trigger BEFORE INSERT OR UPDATE OF pool ON vms
    FOR EACH ROW EXECUTE FUNCTION guard_vm_pool();

-- After machines were added: one that is lent has a lease, and the history says so.
CREATE OR REPLACE FUNCTION follow_new_vms() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    who text := actor();
BEGIN
    PERFORM open_leases(array_agg(n.id) FILTER (WHERE n.lease_id IS NOT NULL)) FROM new_rows n;
    INSERT INTO events (actor, kind, vm_id, hostname, lease_id, detail)
    SELECT who, 'vm.' || n.status, n.id, n.hostname, n.lease_id, jsonb_build_object('epoch', n.epoch) FROM new_rows n;
    RETURN NULL;
END $$;

-- After machines were changed: leases follow them, and the history says so. Old and new rows have the same
-- ids; they meet in a FULL JOIN because that is never planned as a nested loop, which a kept plan would be for 10,000.
CREATE OR REPLACE FUNCTION follow_vms() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    lent  integer[];
    freed boolean;
    who   text := actor();
BEGIN
    SELECT array_agg(n.id) FILTER (WHERE n.lease_id IS NOT NULL AND (o.lease_id IS NULL OR n.epoch <> o.epoch) AND NOT coalesce(
               (SELECT l.live AND (l.vm_id, l.epoch, l.email, l.crd_command) IS NOT DISTINCT FROM (n.id, n.epoch, n.email, n.crd_command)
                FROM leases l WHERE l.id = n.lease_id), false)),
           bool_or(o.lease_id IS NOT NULL AND n.lease_id IS NULL) INTO lent, freed
    FROM old_rows o FULL JOIN new_rows n ON n.id = o.id;
    IF freed THEN
        PERFORM close_leases(array_agg(o.lease_id) FILTER (WHERE n.lease_id IS NULL), n.status, n.reason)
        FROM old_rows o FULL JOIN new_rows n ON n.id = o.id
        GROUP BY n.status, n.reason HAVING bool_or(o.lease_id IS NOT NULL AND n.lease_id IS NULL);
    END IF;
    IF lent IS NOT NULL THEN
        PERFORM open_leases(lent);
    END IF;
    INSERT INTO events (actor, kind, vm_id, hostname, lease_id, detail)
    SELECT who, 'vm.' || n.status, n.id, n.hostname, coalesce(n.lease_id, o.lease_id),
           jsonb_strip_nulls(jsonb_build_object('from', o.status, 'epoch', n.epoch, 'reason', n.reason))
    FROM old_rows o FULL JOIN new_rows n ON n.id = o.id
    WHERE (n.status, n.epoch) IS DISTINCT FROM (o.status, o.epoch);
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER vm_follow_update_trigger AFTER UPDATE ON vms
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION follow_vms();
CREATE OR REPLACE TRIGGER vm_follow_insert_trigger AFTER INSERT ON vms
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION follow_new_vms();

-- After machines were deleted: nobody keeps a lease on a machine that is not there.
CREATE OR REPLACE FUNCTION forget_vms() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM close_leases(array_agg(o.lease_id), 'deleted', NULL) FROM old_rows o WHERE o.lease_id IS NOT NULL;
    DELETE FROM vm_heartbeats h USING old_rows o WHERE h.vm_id = o.id;
    INSERT INTO events (actor, kind, vm_id, hostname, lease_id, detail)
    SELECT actor(), 'vm.deleted', o.id, o.hostname, o.lease_id, jsonb_build_object('from', o.status) FROM old_rows o;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER vm_forget_trigger AFTER DELETE ON vms
    REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION forget_vms();

CREATE OR REPLACE TRIGGER vm_truncate_trigger BEFORE TRUNCATE ON vms
    FOR EACH STATEMENT EXECUTE FUNCTION delete_before_truncate();

-- Tells whoever typed a statement how far it reached, when that was a lease or further than one machine.
CREATE OR REPLACE FUNCTION tell_vms() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    machines bigint;
    theirs   uuid[];
    moved    bigint;
    now_are  text := 'deleted';
BEGIN
    IF TG_OP = 'UPDATE' THEN
        SELECT count(*), array_remove(array_agg(o.lease_id), NULL), string_agg(DISTINCT n.status, ' or ') INTO machines, theirs, now_are
        FROM old_rows o FULL JOIN new_rows n ON n.id = o.id
        WHERE n.status IS DISTINCT FROM o.status;  -- which keeps the join full: see follow_vms
    ELSE
        SELECT count(*), array_remove(array_agg(o.lease_id), NULL) INTO machines, theirs FROM old_rows o;
    END IF;
    IF machines > 1 OR theirs <> '{}' THEN
        moved := (SELECT count(*) FROM leases l WHERE l.id = ANY (theirs) AND l.live);
        RAISE NOTICE 'now %: %; over: %', now_are, counted(machines, 'machine'), counted(cardinality(theirs) - moved, 'lease')
            || CASE WHEN moved > 0 THEN '; moved: ' || counted(moved, 'lease') ELSE '' END;
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER vm_tell_update_trigger AFTER UPDATE ON vms
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT WHEN (session_user = current_user AND pg_trigger_depth() = 0) EXECUTE FUNCTION tell_vms();
CREATE OR REPLACE TRIGGER vm_tell_delete_trigger AFTER DELETE ON vms
    REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT WHEN (session_user = current_user) EXECUTE FUNCTION tell_vms();

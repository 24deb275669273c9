-- All that a machine's role may touch. Who calls is caller(), never an argument; every write carries the epoch.

CREATE SCHEMA IF NOT EXISTS client_api;
REVOKE ALL ON SCHEMA client_api FROM PUBLIC;

-- The caller's own machine, locked when p_lock. Refuses whoever has none.
CREATE OR REPLACE FUNCTION client_vm(p_lock boolean) RETURNS vms LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    vm vms;
BEGIN
    IF p_lock THEN
        SELECT * INTO vm FROM vms WHERE role = caller() FOR UPDATE;
    ELSE
        SELECT * INTO vm FROM vms WHERE role = caller();
    END IF;
    IF vm.id IS NULL OR vm.status = 'retired' THEN
        RAISE EXCEPTION 'this machine is not enrolled (any more)' USING ERRCODE = 'LL002',
            HINT = 'Ask an admin to invite it: lablink vms invite HOSTNAME.';
    END IF;
    RETURN vm;
END $$;

-- Refuses a caller whose epoch is not the machine's: it was cut off and does not know it yet.
CREATE OR REPLACE FUNCTION check_epoch(vm vms, p_epoch bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_epoch IS DISTINCT FROM vm.epoch THEN
        RAISE EXCEPTION 'epoch % is not %''s, which is %', p_epoch, vm.hostname, vm.epoch USING ERRCODE = 'LL001',
            HINT = 'Say hello and do what it answers.';
    END IF;
END $$;

-- Commits this transaction without waiting for the disk (or a standby): right where a crash that loses it loses nothing
-- that the machine would not do again. What others build upon it is durable only after it: their commit flushes it too.
CREATE OR REPLACE FUNCTION answer_before_the_disk() RETURNS void LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT set_config('synchronous_commit', 'off', true);
END;

-- Sign of life, question for orders and exchange of fences in one. p_epoch and p_lease are the highest the machine remembers,
-- p_idle the seconds since somebody used it (null: it cannot say).
CREATE OR REPLACE FUNCTION client_api.hello(p_epoch bigint, p_lease uuid, p_idle integer DEFAULT NULL)
RETURNS TABLE (vm_id integer, hostname text, status text, epoch bigint, lease_id uuid, lease_status text, kind text,
               period_seconds double precision)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    vm vms := client_vm(false);
BEGIN
    INSERT INTO vm_heartbeats (vm_id, seen_at, used_at)
    VALUES (vm.id, clock(), clock() - CASE WHEN p_idle IS NOT NULL THEN make_interval(secs => greatest(p_idle, 0)) END)
    ON CONFLICT (vm_id) DO UPDATE SET seen_at = excluded.seen_at, used_at = excluded.used_at;
    IF remembers_more(vm, p_epoch, p_lease) OR vm.status = 'booting' OR vm.reason = 'lost' THEN
        PERFORM welcome_vm(p_epoch, p_lease);
    ELSE
        PERFORM answer_before_the_disk();  -- a heartbeat that a crash loses is said again
    END IF;
    RETURN QUERY SELECT v.id, v.hostname::text, v.status::text, v.epoch, v.lease_id, l.status, ordered_kind(l), hello_period()
    FROM vms v LEFT JOIN leases l ON l.id = v.lease_id WHERE v.id = vm.id;
    IF NOT FOUND THEN  -- it was deleted while its heartbeat waited
        PERFORM client_vm(false);
    END IF;
END $$;

-- The kind of a lease as its machine is told it: one that waits for a fresh line is only held.
CREATE OR REPLACE FUNCTION ordered_kind(lease leases) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF lease.id IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN CASE WHEN lease.needs_line THEN 'hold' ELSE lease.kind END;
END $$;

-- Whether the machine knows of something later than this row: the database was restored to an earlier time.
CREATE OR REPLACE FUNCTION remembers_more(vm vms, p_epoch bigint, p_lease uuid) RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF p_epoch > vm.epoch AND p_epoch >= highest_epoch() THEN
        RAISE EXCEPTION 'no machine was ever at epoch %', p_epoch USING ERRCODE = 'LL001',
            HINT = 'Its journal is damaged: start it again with an empty state directory and a new join token.';
    END IF;
    RETURN is_ahead(vm, p_epoch, p_lease);
END $$;

-- The same of a memory that may be: its epoch was a machine's. Its text is kept as it is: up to PostgreSQL 15 a parsed one would
-- let nobody add a column to vms.
CREATE OR REPLACE FUNCTION is_ahead(vm vms, p_epoch bigint, p_lease uuid) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
SELECT coalesce(p_epoch > vm.epoch, false)
    OR coalesce(p_epoch = vm.epoch, false) AND vm.status = 'in-use' AND p_lease IS DISTINCT FROM vm.lease_id
$$;

-- Writes down that the machine's memory is ahead of the database, which it may be once a minute: a machine that says so
-- without end would fill the history.
CREATE OR REPLACE FUNCTION limit_jumps(vm vms) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM events e WHERE (e.hostname, e.vm_id) = (vm.hostname, vm.id) AND e.kind = 'alert.ahead' AND e.at > clock() - interval '1 minute') THEN
        RAISE EXCEPTION '% remembered more than the database less than a minute ago', vm.hostname
            USING ERRCODE = 'LL001', HINT = 'Say hello again in a minute.';
    END IF;
    PERFORM record_event('alert.ahead', vm.id, vm.hostname, vm.lease_id, '{}');
END $$;

-- The hellos that change something: first contact, return after being lost, and a machine that remembers more than the
-- database does (which was restored to an earlier time): then the lease fails and the epoch jumps past all it remembers.
CREATE OR REPLACE FUNCTION welcome_vm(p_epoch bigint, p_lease uuid) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    vm vms := client_vm(true);
BEGIN
    IF remembers_more(vm, p_epoch, p_lease) THEN
        PERFORM limit_jumps(vm);
        UPDATE leases SET status = 'failed', failure = 'database-restored' WHERE id = vm.lease_id AND live;
        UPDATE vms SET epoch = p_epoch + 1, status = CASE WHEN status = 'failed' AND reason <> 'lost' THEN status ELSE 'cleaning' END
        WHERE id = vm.id;
    ELSIF vm.status = 'booting' THEN
        UPDATE vms SET status = CASE WHEN cleaned_epoch = epoch THEN 'available' ELSE 'cleaning' END WHERE id = vm.id;
        PERFORM serve_queue(vm.pool);
    ELSIF vm.reason = 'lost' THEN
        UPDATE vms SET status = 'cleaning' WHERE id = vm.id;
    END IF;
END $$;

-- Hands the assignment's command to the machine. May be repeated until the command is reported started.
CREATE OR REPLACE FUNCTION client_api.claim(p_epoch bigint)
RETURNS TABLE (lease_id uuid, epoch bigint, kind text, command jsonb, secrets jsonb, line text, accepts_desktop boolean,
               programs text[], limit_seconds double precision)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    vm    vms := client_vm(true);
    lease leases;
BEGIN
    PERFORM check_epoch(vm, p_epoch);
    SELECT * INTO lease FROM leases WHERE id = vm.lease_id FOR UPDATE;
    IF lease.status = 'assigned' AND NOT lease.needs_line THEN
        UPDATE leases SET status = 'claimed' WHERE id = lease.id;
        PERFORM answer_before_the_disk();  -- a claim that a crash loses is made again, for the same lease and epoch
    ELSIF lease.status IS DISTINCT FROM 'claimed' OR lease.started_at IS NOT NULL THEN
        RAISE EXCEPTION 'VM % has nothing to claim', vm.hostname USING ERRCODE = 'LL008',
            HINT = 'Say hello and do what it answers.';
    END IF;
    RETURN QUERY SELECT l.id, l.epoch, l.kind, l.command, s.secrets, s.line, p.accepts_desktop, p.programs,
                        p.command_seconds::double precision
    FROM leases l JOIN pools p ON p.name = l.pool LEFT JOIN lease_secrets s ON s.lease_id = l.id WHERE l.id = lease.id;
END $$;

-- The machine wiped itself and made its fence durable: it is available, and whoever waits gets it. Returns its status.
CREATE OR REPLACE FUNCTION client_api.cleaned(p_epoch bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    vm vms := client_vm(true);
BEGIN
    PERFORM check_epoch(vm, p_epoch);
    IF vm.status = 'cleaning' THEN
        UPDATE vms SET status = 'available', cleaned_epoch = p_epoch WHERE id = vm.id;
        IF serve_queue(vm.pool) = 0 THEN
            PERFORM answer_before_the_disk();  -- a crash that loses it finds the machine cleaning, and it cleans again
        END IF;
    END IF;
    RETURN (SELECT status FROM vms WHERE id = vm.id);
END $$;

-- Whether an admin wants this machine to make itself a new password.
CREATE OR REPLACE FUNCTION client_api.wants_new_password() RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT coalesce(shobj_description(oid, 'pg_authid') = public.new_password_wish(), false)
    FROM pg_roles WHERE rolname = public.caller();
END;

-- Gives the machine's role another password, of which only the verifier comes here, if that is wanted. The old one is worth
-- nothing from then on, nor is the token that was made of it, and whoever else is logged in with it is cut off. Says whether it was done.
CREATE OR REPLACE FUNCTION client_api.change_password(p_verifier text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    vm vms := client_vm(true);
BEGIN
    PERFORM check_verifier(p_verifier);
    IF NOT client_api.wants_new_password() THEN
        RETURN false;
    END IF;
    EXECUTE format('ALTER ROLE %I PASSWORD %L', vm.role, p_verifier);
    EXECUTE format('COMMENT ON ROLE %I IS NULL', vm.role);
    UPDATE vm_roles SET hub_sha256 = NULL WHERE role = vm.role;
    PERFORM record_event('vm.rotated', vm.id, vm.hostname, NULL, '{}');
    PERFORM disconnect_vm(vm.hostname);
    RETURN true;
END $$;

-- How this boot of the machine went: what it did and for how many seconds, in turn. The same boot again changes nothing.
CREATE OR REPLACE FUNCTION client_api.booted(p_boot uuid, p_phases jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    vm vms := client_vm(false);
BEGIN
    IF p_boot IS NULL OR NOT coalesce(are_phases(p_phases), false) THEN
        RAISE EXCEPTION 'a boot is at most ten phases, each with its name and seconds' USING ERRCODE = 'LL003',
            HINT = 'Update the client on this machine.';
    END IF;
    INSERT INTO boots (vm_id, boot_id, pool, phases, seconds)
    SELECT vm.id, p_boot, vm.pool, p_phases, sum((phase ->> 1)::numeric) FROM jsonb_array_elements(p_phases) phase
    ON CONFLICT (vm_id, boot_id) DO NOTHING;
    DELETE FROM boots b WHERE b.vm_id = vm.id AND b.boot_id NOT IN (
        SELECT k.boot_id FROM boots k WHERE k.vm_id = vm.id ORDER BY k.at DESC, k.boot_id LIMIT 20);
    PERFORM answer_before_the_disk();  -- a crash that loses it loses a figure
END $$;

-- Whether that is a list of one to ten phases, each with a plain name and seconds.
CREATE OR REPLACE FUNCTION are_phases(p_phases jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE
RETURN CASE
    WHEN jsonb_typeof(p_phases) <> 'array' THEN false
    WHEN jsonb_array_length(p_phases) NOT BETWEEN 1 AND 10 OR length(p_phases::text) > 1000 THEN false
    ELSE (SELECT bool_and(coalesce(jsonb_path_match(phase, 'strict $.size() == 2
        && $[0] like_regex "^[a-z][a-z-]{0,39}$" && $[1] >= 0 && $[1] <= 86400', silent => true), false))
        FROM jsonb_array_elements(p_phases) phase) END;

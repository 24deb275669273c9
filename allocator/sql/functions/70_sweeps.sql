-- Periodic duties. Any number of allocators may run them: each takes an advisory lock and leaves when another has it.
-- Each returns how many rows it changed.

CREATE OR REPLACE FUNCTION sweep_begins(p_name text) RETURNS boolean LANGUAGE sql
RETURN pg_try_advisory_xact_lock(hashtextextended('lablink sweep ' || p_name, 0));

-- Machines that were silent too long are failed. Silence counts from the latest of the last hello, the start of
-- PostgreSQL and the moment p_contact_seconds ago when the caller last regained the database. When more than a fifth
-- of the fleet (and more than two) would go at once, the network is the likelier culprit: nothing goes, an event warns.
CREATE OR REPLACE FUNCTION sweep_lost(p_contact_seconds double precision) RETURNS integer LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    silent  integer[];
    already integer;
    fleet   integer;
BEGIN
    IF NOT sweep_begins('lost') OR greatest(pg_postmaster_start_time(), clock() - make_interval(secs => p_contact_seconds))
                                   > clock() - lost_after() THEN
        RETURN 0;
    END IF;
    SELECT array_agg(v.id) INTO silent FROM vms v JOIN vm_heartbeats h ON h.vm_id = v.id
    WHERE v.status IN ('booting', 'available', 'in-use', 'cleaning') AND h.seen_at < clock() - lost_after();
    IF silent IS NULL THEN
        RETURN 0;
    END IF;
    SELECT count(*), count(*) FILTER (WHERE reason = 'lost' AND updated_at > clock() - interval '5 minutes')
    INTO fleet, already FROM vms WHERE status <> 'retired';
    IF cardinality(silent) + already > greatest(2, ceil(fleet * 0.2)) THEN
        PERFORM warn_of_silence(cardinality(silent), fleet);
        RETURN 0;
    END IF;
    UPDATE vms SET status = 'failed', reason = 'lost' WHERE id = ANY (silent);
    RETURN cardinality(silent);
END $$;

-- Says once a minute that so many machines are silent that none is given up.
CREATE OR REPLACE FUNCTION warn_of_silence(p_silent integer, p_fleet integer) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM events WHERE kind = 'alert.silence' AND at > clock() - interval '1 minute'
                   AND id > (SELECT max(id) - 1000 FROM events)) THEN
        PERFORM record_event('alert.silence', NULL, NULL, NULL, jsonb_build_object('silent', p_silent, 'fleet', p_fleet));
    END IF;
END $$;

-- Steps that took too long fail; active leases whose time is up end.
CREATE OR REPLACE FUNCTION sweep_deadlines() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    due uuid[];
    n   integer := 0;
BEGIN
    IF NOT sweep_begins('deadlines') THEN
        RETURN 0;
    END IF;
    due := lock_leases(ARRAY(SELECT id FROM leases WHERE live AND deadline < clock()));
    IF cardinality(due) > 0 THEN
        UPDATE leases SET failure = CASE status WHEN 'queued' THEN 'queue-timeout' ELSE 'deadline' END, status = 'failed'
        WHERE id = ANY (due) AND deadline < clock();
    END IF;
    n := cardinality(due);
    due := lock_leases(ARRAY(SELECT id FROM leases WHERE live AND expires_at < clock() AND status = 'active'));
    IF cardinality(due) > 0 THEN
        UPDATE leases SET status = 'ended' WHERE id = ANY (due) AND status = 'active';
    END IF;
    RETURN n + cardinality(due);
END $$;

-- Locks these leases in the order that every writer keeps (machine first, then lease); skips those that somebody holds.
CREATE OR REPLACE FUNCTION lock_leases(p_leases uuid[]) RETURNS uuid[] LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    reachable uuid[];
BEGIN
    PERFORM FROM vms WHERE lease_id = ANY (p_leases) ORDER BY id FOR UPDATE SKIP LOCKED;
    SELECT coalesce(array_agg(s.id), '{}') INTO reachable
    FROM (SELECT id FROM leases WHERE id = ANY (p_leases) AND live ORDER BY id FOR UPDATE SKIP LOCKED) s;
    RETURN reachable;
END $$;

-- Free machines go to those who wait: the net under serve_queue's calls at every hello, wipe and request.
CREATE OR REPLACE FUNCTION sweep_queue() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF NOT sweep_begins('queue') THEN
        RETURN 0;
    END IF;
    RETURN (SELECT coalesce(sum(serve_queue(p.name)), 0) FROM pools p);
END $$;

-- A code or PIN that was not delivered within ten minutes is forgotten, and its lease fails: the code is too old anyway.
CREATE OR REPLACE FUNCTION sweep_secrets() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    due uuid[];
BEGIN
    IF NOT sweep_begins('secrets') THEN
        RETURN 0;
    END IF;
    due := lock_leases(ARRAY(SELECT lease_id FROM lease_secrets WHERE created_at < clock() - interval '10 minutes'));
    IF cardinality(due) > 0 THEN
        UPDATE leases SET status = 'failed', failure = 'code-expired' WHERE id = ANY (due);
    END IF;
    RETURN cardinality(due);
END $$;

-- Database roles of machines that are no more are cut off and dropped.
CREATE OR REPLACE FUNCTION sweep_roles() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    gone name;
    n    integer := 0;
BEGIN
    IF NOT sweep_begins('roles') THEN
        RETURN 0;
    END IF;
    FOR gone IN
        SELECT r.role FROM vm_roles r
        WHERE NOT EXISTS (SELECT FROM vms v WHERE v.role = r.role AND v.status <> 'retired') FOR UPDATE SKIP LOCKED
    LOOP
        PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = gone;
        EXECUTE format('DROP ROLE IF EXISTS %I', gone);
        DELETE FROM vm_roles WHERE role = gone;
        UPDATE vms SET role = NULL WHERE role = gone;
        n := n + 1;
    END LOOP;
    RETURN n;
END $$;

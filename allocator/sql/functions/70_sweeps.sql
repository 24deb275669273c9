-- Periodic duties. Any number of allocators may run them: each locks its row of `sweeps` and leaves when another has it
-- (an advisory lock would not do: any machine's role may take one and keep it). Each returns how many rows it changed, at
-- most 1,000 of a kind: the rest is the next one's, so that none outlasts a statement's time limit.

-- Takes the duty until the end of the transaction. Says whether it could: false when another allocator is at it.
CREATE OR REPLACE FUNCTION sweep_begins(p_name text) RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM FROM sweeps WHERE name = p_name FOR UPDATE SKIP LOCKED;
    RETURN FOUND;
END $$;

-- Machines that were silent too long are failed. Silence counts from the latest of the last hello, the start of
-- PostgreSQL and the moment p_contact_seconds ago when the caller last regained the database. When more than a fifth
-- of the fleet (and more than two) would go at once, the network is the likelier culprit: they stay, an event warns. If the
-- others are heard and these are not for five minutes more, they are gone, or nobody reaches them: a fifth goes every five minutes.
-- A machine that was never heard since its row was made or it enrolled says nothing about the network: it goes at once.
CREATE OR REPLACE FUNCTION sweep_lost(p_contact_seconds double precision) RETURNS integer LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    since   timestamptz := clock() - lost_after();
    there   timestamptz := greatest(pg_postmaster_start_time(), clock() - make_interval(secs => p_contact_seconds));
    silent  integer[];
    unheard integer[];
    room    integer;
    fleet   integer;
BEGIN
    IF NOT sweep_begins('lost') OR there > since THEN
        RETURN 0;
    END IF;
    SELECT array_agg(id) FILTER (WHERE heard), array_agg(id) FILTER (WHERE NOT heard) INTO silent, unheard
    FROM silent_vms(since);
    IF silent IS NOT NULL THEN
        SELECT count(*), room_to_give_up(count(*), count(*) FILTER (
            WHERE reason = 'lost' AND updated_at > clock() - interval '5 minutes'))
        INTO fleet, room FROM vms v JOIN vm_heartbeats h ON h.vm_id = v.id WHERE status <> 'retired';
        IF cardinality(silent) > room THEN
            PERFORM warn_of_silence(cardinality(silent), fleet);
            silent := CASE WHEN there < since - interval '5 minutes' AND cardinality(silent) * 2 < fleet THEN
                ARRAY(SELECT id FROM silent_vms(since - interval '5 minutes') WHERE heard ORDER BY id LIMIT greatest(0, room)) END;
        END IF;
    END IF;
    RETURN lose_vms((silent || unheard)[:1000], since);
END $$;

-- The machines in service of which nothing was heard since p_since, and whether anything was before: a machine that is
-- booting is waited for from its last change on, whatever an earlier one of its name said.
CREATE OR REPLACE FUNCTION silent_vms(p_since timestamptz) RETURNS TABLE (id integer, heard boolean) LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT v.id, h.vm_id IS NOT NULL AND v.status <> 'booting'
    FROM public.vms v LEFT JOIN public.vm_heartbeats h ON h.vm_id = v.id
    WHERE v.status IN ('booting', 'available', 'in-use', 'cleaning')
      AND CASE WHEN h.vm_id IS NULL OR v.status = 'booting' THEN v.updated_at ELSE h.seen_at END < p_since;
END;

-- Fails those of these machines that are still silent; one whose row or heartbeat somebody holds is left for the next sweep.
-- A hello that comes meanwhile waits, and finds the machine lost. Whoever is silent ten seconds longer has its own sessions
-- ended first.
CREATE OR REPLACE FUNCTION lose_vms(p_vms integer[], p_since timestamptz) RETURNS integer LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    held integer[];
    lost integer[];
BEGIN
    IF cardinality(p_vms) > 0 THEN
        PERFORM wrest_vms(ARRAY(SELECT id FROM silent_vms(p_since - interval '10 seconds') WHERE id = ANY (p_vms)));
    END IF;
    held := ARRAY(SELECT vm_id FROM vm_heartbeats WHERE vm_id = ANY (p_vms) ORDER BY vm_id FOR UPDATE SKIP LOCKED);
    lost := ARRAY(
        SELECT v.id FROM vms v JOIN silent_vms(p_since) s ON s.id = v.id
        WHERE v.id = ANY (p_vms) AND (v.id = ANY (held) OR NOT EXISTS (SELECT FROM vm_heartbeats h WHERE h.vm_id = v.id))
        ORDER BY v.id FOR UPDATE OF v SKIP LOCKED);
    IF cardinality(lost) > 0 THEN
        UPDATE vms SET status = 'failed', reason = 'lost' WHERE id = ANY (lost);
    END IF;
    RETURN cardinality(lost);
END $$;

-- Ends the sessions of these machines that are in a transaction now, which may be all that keeps a row locked against what
-- is overdue, and locks the machines: whoever waits is next. At most five, and a fifth of a second for each; one that
-- somebody else holds is left. Nobody's command suffers, for a client connects again.
CREATE OR REPLACE FUNCTION wrest_vms(p_vms integer[]) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
    machine record;
BEGIN
    FOR machine IN SELECT v.id, v.role FROM vms v WHERE v.id = ANY (p_vms) AND EXISTS (
        SELECT FROM pg_stat_activity a WHERE a.usename = v.role AND a.xact_start IS NOT NULL) ORDER BY v.id LIMIT 5
    LOOP
        BEGIN
            PERFORM pg_terminate_backend(a.pid) FROM pg_stat_activity a WHERE a.usename = machine.role;
            PERFORM FROM vm_heartbeats WHERE vm_id = machine.id FOR UPDATE;
            PERFORM FROM vms WHERE id = machine.id FOR UPDATE;
        EXCEPTION WHEN lock_not_available OR insufficient_privilege THEN
            CONTINUE;
        END;
    END LOOP;
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

-- Steps that took too long fail; active leases whose time is up end. A machine cannot keep a lease by keeping its row
-- locked: what is ten seconds overdue ends the machine's own sessions first.
CREATE OR REPLACE FUNCTION sweep_deadlines() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    due uuid[];
    n   integer := 0;
BEGIN
    IF NOT sweep_begins('deadlines') THEN
        RETURN 0;
    END IF;
    PERFORM wrest_vms(ARRAY(
        SELECT vm_id FROM leases WHERE live AND coalesce(deadline, expires_at) < clock() - interval '10 seconds'));
    due := lock_leases(ARRAY(SELECT l.id FROM leases l WHERE l.live AND l.deadline < clock()
        AND NOT (l.status = 'queued' AND EXISTS (SELECT FROM pools p WHERE p.name = l.pool AND p.paused)) LIMIT 1000));
    IF cardinality(due) > 0 THEN
        UPDATE leases l SET status = 'queued', passed_over = l.needs_line,
               trouble = CASE WHEN l.needs_line THEN 'no-line' ELSE 'deadline' END FROM pools p
        WHERE l.id = ANY (due) AND l.deadline < clock() AND l.vm_id IS NOT NULL AND p.name = l.pool
              AND (may_move(l, p) OR l.needs_line AND l.expires_at > clock());
        UPDATE leases l SET status = 'failed', failure = CASE
            WHEN l.needs_line AND (l.status <> 'queued' OR l.passed_over) THEN 'no-line' WHEN l.status = 'queued' THEN 'queue-timeout'
            ELSE 'deadline' END
        WHERE id = ANY (due) AND deadline < clock();
    END IF;
    n := cardinality(due);
    due := lock_leases(ARRAY(SELECT id FROM leases WHERE live AND expires_at < clock() AND status = 'active' LIMIT 1000));
    IF cardinality(due) > 0 THEN
        UPDATE leases SET status = 'ended' WHERE id = ANY (due) AND status = 'active' AND expires_at < clock();  -- it may be longer by now
    END IF;
    RETURN n + cardinality(due);
END $$;

-- A lease, locked in the order that every writer keeps: its machine first. Whoever asks for one that gets its machine at this moment
-- tries again. Empty when there is none.
CREATE OR REPLACE FUNCTION lock_lease(p_lease uuid) RETURNS leases LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    machine integer;
    lease   leases;
BEGIN
    SELECT id INTO machine FROM vms WHERE lease_id = p_lease FOR UPDATE;
    SELECT * INTO lease FROM leases WHERE id = p_lease FOR UPDATE;
    IF lease.live AND lease.vm_id IS DISTINCT FROM machine THEN
        RAISE EXCEPTION 'the lease got its machine at this moment' USING ERRCODE = 'serialization_failure', HINT = 'Try again.';
    END IF;
    RETURN lease;
END $$;

-- Locks these leases in the order that every writer keeps (machine first, then lease); skips a lease when somebody holds
-- it or its machine.
CREATE OR REPLACE FUNCTION lock_leases(p_leases uuid[]) RETURNS uuid[] LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    machines integer[] := ARRAY(SELECT id FROM vms WHERE lease_id = ANY (p_leases) ORDER BY id FOR UPDATE SKIP LOCKED);
BEGIN
    RETURN ARRAY(SELECT id FROM leases WHERE id = ANY (p_leases) AND live AND (vm_id IS NULL OR vm_id = ANY (machines))
                 ORDER BY id FOR UPDATE SKIP LOCKED);
END $$;

-- Waits until nobody holds the request that is next in this pool, which everybody else skips then. A machine that becomes
-- available takes one for a moment; where that moment is long, the sessions of such machines are ended.
CREATE OR REPLACE FUNCTION free_the_head(p_pool text) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '500ms' AS $$
BEGIN
    PERFORM FROM leases WHERE id = (SELECT i.id FROM queue_places i WHERE i.pool = p_pool AND i.position = 1) FOR UPDATE;
EXCEPTION WHEN lock_not_available THEN
    PERFORM wrest_vms(ARRAY(SELECT id FROM vms WHERE pool = p_pool AND status IN ('booting', 'cleaning')));
END $$;

-- Free machines go to those who wait: the net under serve_queue's calls at every hello, wipe and request.
CREATE OR REPLACE FUNCTION sweep_queue() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    pools text[];
BEGIN
    IF NOT sweep_begins('queue') THEN
        RETURN 0;
    END IF;
    pools := ARRAY(SELECT p.name FROM pools p, pool_counts(p.name) c WHERE NOT p.paused AND c.free > 0 AND c.waiting > 0 ORDER BY p.name);
    PERFORM free_the_head(name) FROM unnest(pools) AS p (name);
    RETURN serve_queues(pools);
END $$;

-- Codes and PINs that are ten minutes old are forgotten, those of a lease that somebody works on by the next sweep.
CREATE OR REPLACE FUNCTION sweep_secrets() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    due    uuid[];
    locked uuid[];
    n      integer;
BEGIN
    IF NOT sweep_begins('secrets') THEN
        RETURN 0;
    END IF;
    due := ARRAY(SELECT lease_id FROM lease_secrets WHERE created_at < clock() - interval '10 minutes' LIMIT 1000);
    locked := lock_leases(due);
    DELETE FROM lease_secrets s WHERE s.lease_id = ANY (due) AND s.created_at < clock() - interval '10 minutes'  -- or its line is a fresh one
        AND (s.lease_id = ANY (locked) OR NOT EXISTS (SELECT FROM leases l WHERE l.id = s.lease_id AND l.live));
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;

-- Database roles of machines that are no more are cut off and dropped; so are sessions that machines may not have.
CREATE OR REPLACE FUNCTION sweep_roles() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    gone name;
    n    integer := 0;
BEGIN
    PERFORM cut_sessions(10);  -- first: when somebody hoards locks, sweep_begins gets none
    IF NOT sweep_begins('roles') THEN
        RETURN 0;
    END IF;
    FOR gone IN
        SELECT r.role FROM vm_roles r
        WHERE NOT EXISTS (SELECT FROM vms v WHERE v.role = r.role AND v.status <> 'retired') FOR UPDATE SKIP LOCKED
    LOOP
        n := n + drop_role(gone)::integer;
    END LOOP;
    DELETE FROM vm_heartbeats h WHERE NOT EXISTS (SELECT FROM vms v WHERE v.id = h.vm_id);  -- a dump put them back
    RETURN n;
END $$;

-- Cuts off and drops one role with all that it made (anybody may make large objects). Says whether it could. At most a
-- thousand objects go at a time, for each takes a lock, and the server's table of locks is everybody's.
CREATE OR REPLACE FUNCTION drop_role(p_role name) RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = p_role) THEN
        EXECUTE format('ALTER ROLE %I NOLOGIN', p_role);
        BEGIN
            EXECUTE format('GRANT %I TO CURRENT_USER', p_role);
            PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = p_role;
            IF (SELECT count(lo_unlink(oid)) FROM (
                    SELECT o.oid FROM pg_largeobject_metadata o JOIN pg_roles r ON r.oid = o.lomowner
                    WHERE r.rolname = p_role LIMIT 1000) AS own) = 1000 THEN
                RETURN false;
            END IF;
            EXECUTE format('DROP OWNED BY %I', p_role);
            EXECUTE format('DROP ROLE %I', p_role);
        EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege OR insufficient_resources THEN
            RETURN false;
        END;
    END IF;
    DELETE FROM vm_roles WHERE role = p_role;
    UPDATE vms SET role = NULL WHERE role = p_role;
    RETURN true;
END $$;

-- Ends the sessions of machines that keep a transaction open this long, and of dashboards that keep one three times as
-- long: it may hold the queue, and the queue of notifications, also while one does not read what one listens to (a listener
-- that only hears something is idle, with the time of its last statement). The same for who holds an advisory lock or so
-- many subtransactions that others find no room in the table of locks, and for roles that were dropped or revoked while
-- somebody logged in. Nobody honest does any of this. Returns how many were ended: none where the owner may not (it
-- needs pg_signal_backend and pg_monitor).
CREATE OR REPLACE FUNCTION cut_sessions(p_seconds double precision) RETURNS integer LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    cut integer;
BEGIN
    WITH hoards AS MATERIALIZED (
        SELECT pid FROM pg_locks WHERE locktype IN ('advisory', 'transactionid')
        GROUP BY pid HAVING bool_or(locktype = 'advisory') OR count(*) > 100
    ), sessions AS (
        SELECT a.pid, a.xact_start, a.state <> 'idle' OR a.wait_event = 'ClientWrite' AS in_the_way,
               make_interval(secs => CASE WHEN r.role IS NOT NULL THEN p_seconds
                                          WHEN a.usename = 'lablink_reader' THEN 3 * p_seconds END) AS patience,
               NOT l.rolcanlogin OR a.usename IS NULL AND a.usesysid IS NOT NULL AS nobodys
        FROM pg_stat_activity a LEFT JOIN vm_roles r ON r.role = a.usename LEFT JOIN pg_roles l ON l.rolname = r.role
        WHERE a.datname = current_database() AND a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
    )
    SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) INTO cut FROM sessions
    WHERE nobodys OR in_the_way AND xact_start < clock_timestamp() - patience
       OR patience IS NOT NULL AND pid IN (SELECT pid FROM hoards);
    RETURN cut;
EXCEPTION WHEN insufficient_privilege THEN
    RETURN 0;
END $$;

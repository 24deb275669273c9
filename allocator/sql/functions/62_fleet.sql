-- Machines in the cloud: which are wanted, and how they leave without taking anybody's. Terraform makes what fleet_vms says.
-- Whatever takes a machine away locks its row first, as claim and expiry do: none is both given out and removed.

CREATE OR REPLACE TRIGGER fleet_pool_trigger BEFORE INSERT OR UPDATE OF pool ON fleet_vms
    FOR EACH ROW EXECUTE FUNCTION guard_vm_pool();

-- A machine that comes back is lent again, whatever was meant with the one before it.
CREATE OR REPLACE FUNCTION reset_drain() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.draining := false;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER vm_drain_reset_trigger BEFORE UPDATE ON vms
    FOR EACH ROW WHEN (NEW.draining AND NEW.status = 'retired') EXECUTE FUNCTION reset_drain();

-- The history says when a machine was taken out of allocation, and when that was taken back.
CREATE OR REPLACE FUNCTION record_drain() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM record_event(CASE WHEN NEW.draining THEN 'vm.draining' ELSE 'vm.undrained' END, NEW.id, NEW.hostname, NEW.lease_id, '{}');
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER vm_drain_record_trigger AFTER UPDATE ON vms
    FOR EACH ROW WHEN (NEW.draining <> OLD.draining) EXECUTE FUNCTION record_drain();

-- Takes machines out of allocation; who has one keeps it. Returns those that were not draining before.
CREATE OR REPLACE FUNCTION drain_vms(p_hostnames text[]) RETURNS text[] LANGUAGE sql
SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH begun AS (
        UPDATE public.vms SET draining = true WHERE hostname = ANY (p_hostnames) AND NOT draining AND status <> 'retired'
        RETURNING hostname)
    SELECT coalesce(array_agg(hostname::text ORDER BY hostname), '{}') FROM begun;
END;

-- Puts machines into allocation again; whoever waits gets one from the next sweep. Returns those that were draining.
CREATE OR REPLACE FUNCTION undrain_vms(p_hostnames text[]) RETURNS text[] LANGUAGE sql
SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH ended AS (
        UPDATE public.vms SET draining = false WHERE hostname = ANY (p_hostnames) AND draining RETURNING hostname)
    SELECT coalesce(array_agg(hostname::text ORDER BY hostname), '{}') FROM ended;
END;

-- The same with one machine, or the refusal of one that is not there. Returns its status.
CREATE OR REPLACE FUNCTION drain_vm(p_hostname text) RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    now_is text;
BEGIN
    UPDATE vms SET draining = true WHERE hostname = p_hostname AND status <> 'retired' RETURNING status INTO now_is;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no VM % in service', p_hostname USING ERRCODE = 'LL002', HINT = 'List them: lablink vms list.';
    END IF;
    RETURN now_is;
END $$;

-- Who has which of these machines, and until when.
CREATE OR REPLACE FUNCTION held_vms(p_hostnames text[]) RETURNS TABLE (hostname text, email text, expires_at timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT v.hostname, v.email, l.expires_at FROM public.vms v LEFT JOIN public.leases l ON l.id = v.lease_id
    WHERE v.hostname = ANY (p_hostnames) AND v.status = 'in-use' ORDER BY v.hostname;
END;

-- A name for the next machine of that beginning, which neither the fleet nor any other machine in service has.
CREATE OR REPLACE FUNCTION free_fleet_name(p_prefix text) RETURNS text LANGUAGE sql VOLATILE
SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT format('%s-%s', p_prefix, n) FROM generate_series(1, (SELECT count(*) + 1 FROM public.vms)
                                                                + (SELECT count(*) FROM public.fleet_vms)) AS n
    WHERE NOT EXISTS (SELECT FROM public.fleet_vms f WHERE f.hostname = format('%s-%s', p_prefix, n))
      AND NOT EXISTS (SELECT FROM public.vms v WHERE v.hostname = format('%s-%s', p_prefix, n) AND v.status <> 'retired')
    ORDER BY n LIMIT 1;
END;

-- Wants so many machines more of a pool; nulls are as the settings say. Those that are wanted and not made yet count, so
-- that whoever repeats it after an interruption has no more than they asked for. Returns all that are to be made.
CREATE OR REPLACE FUNCTION grow_fleet(
    p_number integer, p_pool text, p_prefix text, p_ami_id text, p_instance_type text, p_disk_gb integer)
RETURNS text[] LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    pending text[] := ARRAY(SELECT hostname FROM fleet_vms WHERE wanted AND pool = p_pool AND invited_at IS NULL);
BEGIN
    PERFORM pool_named(p_pool);
    WHILE cardinality(pending) < p_number LOOP
        INSERT INTO fleet_vms (hostname, pool, ami_id, instance_type, disk_gb)
        VALUES (free_fleet_name(p_prefix), p_pool, p_ami_id, p_instance_type, p_disk_gb)
        RETURNING pending || hostname::text INTO pending;
    END LOOP;
    RETURN pending;
END $$;

-- Retires these machines, unless somebody is on one of them: then nothing is changed, and those are returned. Nobody can
-- be given one afterwards, and nobody may enrol in its place with an invitation of before.
CREATE OR REPLACE FUNCTION retire_idle_vms(p_hostnames text[]) RETURNS text[] LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '10s' AS $$
DECLARE
    held text[];
BEGIN
    PERFORM FROM vms WHERE hostname = ANY (p_hostnames) ORDER BY id FOR UPDATE;
    held := ARRAY(SELECT hostname FROM vms WHERE hostname = ANY (p_hostnames) AND status = 'in-use' ORDER BY hostname);
    IF held = '{}' THEN
        PERFORM retire_of_fleet(p_hostnames);
    END IF;
    RETURN held;
END $$;

-- The same for machines whose rows the caller has locked.
CREATE OR REPLACE FUNCTION retire_of_fleet(p_hostnames text[]) RETURNS void LANGUAGE sql
SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    DELETE FROM public.join_tokens WHERE hostname = ANY (p_hostnames);
    UPDATE public.vms SET status = 'retired' WHERE hostname = ANY (p_hostnames) AND status <> 'retired';
END;

-- In which order machines of the fleet (of one pool, if it is given) are let go: what is unwanted already, what is draining or
-- out of service, what is free for longest; last what is somebody's, as their time is up.
CREATE OR REPLACE FUNCTION leaving_order(p_pool text) RETURNS TABLE (hostname text, vm_id integer, wanted boolean, held boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT f.hostname::text, f.vm_id, f.wanted, f.status IS NOT DISTINCT FROM 'in-use' AS held FROM fleet_status f
    WHERE f.pool = coalesce(p_pool, f.pool)
    ORDER BY f.wanted, f.draining IS NOT TRUE, held, f.status IN ('available', 'cleaning', 'booting') IS TRUE,
             f.held_until, f.since, f.hostname;
END $$;

-- Retires so many idle machines in that order, and wants them no more. Those that are unwanted and not removed yet count, so
-- that whoever repeats it lets no more go than they asked for. Returns all that are to be removed; refuses when too few are
-- idle. Who is on one that somebody else wants no more keeps it: the apply will say so.
CREATE OR REPLACE FUNCTION shrink_fleet(p_number integer, p_pool text DEFAULT NULL) RETURNS text[] LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    unwanted  text[] := ARRAY(SELECT hostname FROM fleet_vms WHERE NOT wanted AND pool = coalesce(p_pool, pool));
    idle      text[] := '{}';
    candidate record;
BEGIN
    FOR candidate IN SELECT hostname, vm_id FROM leaving_order(p_pool) WHERE wanted AND NOT held LOOP
        EXIT WHEN cardinality(unwanted || idle) >= p_number;
        PERFORM FROM vms WHERE id = candidate.vm_id AND status <> 'in-use' FOR UPDATE SKIP LOCKED;
        IF FOUND OR candidate.vm_id IS NULL THEN
            idle := idle || candidate.hostname;
        END IF;
    END LOOP;
    IF cardinality(unwanted || idle) < p_number THEN
        RAISE EXCEPTION 'only % can go: the others are somebody''s, or there are no others',
            counted(cardinality(unwanted || idle), 'machine')
            USING ERRCODE = 'LL003', HINT = 'Add --drain to wait for their people, or let fewer go.';
    END IF;
    PERFORM retire_of_fleet(idle);
    UPDATE fleet_vms SET wanted = false WHERE hostname = ANY (idle);
    RETURN unwanted || idle;
END $$;

-- Writes down which machines Terraform's state has, as {hostname: instance}. What is unwanted and not there is forgotten; an
-- instance that is new is to be invited. Returns those that wait for their invitation.
CREATE OR REPLACE FUNCTION record_made(p_made jsonb) RETURNS TABLE (hostname text, pool text) LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    DELETE FROM fleet_vms f WHERE NOT f.wanted AND NOT p_made ? f.hostname;
    UPDATE fleet_vms f SET instance_id = NULL, made_at = NULL
    WHERE f.instance_id IS NOT NULL AND f.instance_id IS DISTINCT FROM p_made ->> f.hostname;
    UPDATE fleet_vms f SET instance_id = p_made ->> f.hostname, made_at = clock(), invited_at = NULL,
           reboots = 0, rebooted_at = NULL
    WHERE f.instance_id IS NULL AND p_made ? f.hostname;
    RETURN QUERY SELECT f.hostname::text, f.pool FROM fleet_vms f
    WHERE f.wanted AND f.instance_id IS NOT NULL AND f.invited_at IS NULL ORDER BY f.hostname;
END $$;

-- These instances are there no more: their machines are retired, which moves the leases that were on them, and the next apply makes
-- others in their place. Returns the machines.
CREATE OR REPLACE FUNCTION lose_instances(p_instances text[]) RETURNS text[] LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '10s' AS $$
DECLARE
    gone text[];
BEGIN
    PERFORM FROM vms v JOIN fleet_vms f ON f.hostname = v.hostname WHERE f.instance_id = ANY (p_instances)
    ORDER BY v.id FOR UPDATE OF v;
    gone := ARRAY(SELECT hostname FROM fleet_vms WHERE instance_id = ANY (p_instances) ORDER BY hostname FOR UPDATE);
    PERFORM record_event('fleet.gone', v.id, f.hostname, v.lease_id, jsonb_build_object('instance', f.instance_id))
    FROM fleet_vms f LEFT JOIN vms v ON v.hostname = f.hostname WHERE f.hostname = ANY (gone);
    PERFORM retire_of_fleet(gone);
    UPDATE fleet_vms SET instance_id = NULL, made_at = NULL, invited_at = NULL WHERE hostname = ANY (gone);
    RETURN gone;
END $$;

-- What is to be done about machines that failed by themselves so long ago: rebooted, after three times replaced. What an admin
-- took out is theirs, and so is a pool that is paused. When replacing did not work, it is tried again after the same time.
CREATE OR REPLACE FUNCTION fleet_repairs(p_cool_down_seconds double precision) RETURNS TABLE (hostname text, act text)
LANGUAGE sql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT f.hostname::text, CASE WHEN f.reboots < 3 THEN 'reboot' ELSE 'replace' END
    FROM fleet_vms f JOIN vms v ON v.hostname = f.hostname
    WHERE f.wanted AND f.instance_id IS NOT NULL AND v.status = 'failed' AND NOT v.draining
      AND (v.reason = 'lost' OR v.reason LIKE 'unhealthy: %')
      AND greatest(v.updated_at, f.rebooted_at, f.made_at) < clock() - make_interval(secs => p_cool_down_seconds)
      AND NOT EXISTS (SELECT FROM pools p WHERE p.name = v.pool AND p.paused)
      AND (f.reboots < 3 OR NOT EXISTS (
          SELECT FROM operations o WHERE o.kind = 'fleet replace' AND o.status = 'failed'
          AND o.finished_at > clock() - make_interval(secs => p_cool_down_seconds)))
    ORDER BY f.hostname
$$;

-- Locks a machine that is to be rebooted, so that nobody is given it before the caller has rebooted it and committed; also
-- after that it stays failed until it was heard again. Returns its instance, null when it works again or was just rebooted.
CREATE OR REPLACE FUNCTION begin_reboot(p_hostname text, p_cool_down_seconds double precision) RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '10s' AS $$
DECLARE
    instance text;
BEGIN
    PERFORM FROM vms WHERE hostname = p_hostname FOR UPDATE;
    UPDATE vms SET reason = 'unhealthy: rebooted, because it was '
                            || regexp_replace(reason, '^unhealthy: (rebooted, because it was )?', '')
    WHERE hostname = p_hostname
      AND hostname IN (SELECT r.hostname FROM fleet_repairs(p_cool_down_seconds) r WHERE r.act = 'reboot');
    IF FOUND THEN
        UPDATE fleet_vms SET reboots = reboots + 1, rebooted_at = clock() WHERE hostname = p_hostname
        RETURNING instance_id INTO instance;
        PERFORM record_event('fleet.reboot', NULL, p_hostname, NULL, jsonb_build_object('instance', instance));
    END IF;
    RETURN instance;
END $$;

-- Machines that were heard well after their reboot (EC2 gives an instance four minutes to end by itself) are cleaned and lent
-- again; after a day in service their reboots are forgotten. Returns how many came back.
CREATE OR REPLACE FUNCTION end_reboots() RETURNS integer LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    back text[] := ARRAY(
        SELECT v.hostname FROM fleet_vms f JOIN vms v ON v.hostname = f.hostname JOIN vm_heartbeats h ON h.vm_id = v.id
        WHERE v.status = 'failed' AND v.reason LIKE 'unhealthy: rebooted%' AND h.seen_at > f.rebooted_at + interval '5 minutes'
        ORDER BY v.id FOR UPDATE OF v SKIP LOCKED);
BEGIN
    UPDATE vms SET status = 'cleaning' WHERE hostname = ANY (back);
    UPDATE fleet_vms f SET reboots = 0 WHERE f.reboots > 0 AND f.rebooted_at < clock() - interval '1 day'
        AND EXISTS (SELECT FROM vms v WHERE v.hostname = f.hostname AND v.status IN ('available', 'in-use', 'cleaning'));
    RETURN cardinality(back);
END $$;

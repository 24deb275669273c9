-- Scaling: how many machines a pool is to have, and which come or go for that. Whoever can make machines (the fleet's allocator,
-- `lablink up`) asks `scale` and does what it says.

-- How many wait for nothing but a machine: not for their group to give one back, nor for the month to be over.
CREATE OR REPLACE FUNCTION waiting_for_machines(p_pool text) RETURNS integer LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM pools p WHERE p.name = p_pool AND p.is_budgeted) THEN
        RETURN cardinality(affordable_queue(p_pool));
    ELSIF EXISTS (SELECT FROM leases l WHERE l.pool = p_pool AND l.status = 'queued' AND l.group_name IS NOT NULL) THEN
        RETURN (SELECT count(*) FROM fair_queue(p_pool) f WHERE f.held_back IS NULL);
    END IF;
    RETURN (SELECT count(*) FROM leases l WHERE l.pool = p_pool AND l.status = 'queued' AND NOT l.passed_over);
END $$;

-- The pool's machines: lent, ready or about to be, on their way by name, and all that there are; and who waits. Who is to go counts
-- only among all. A machine is on its way from its invitation on.
CREATE OR REPLACE FUNCTION size_of(p_pool text) RETURNS pool_size LANGUAGE sql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
    WITH machines AS (
        SELECT v.hostname, v.status, v.draining FROM vms v WHERE v.pool = p_pool AND v.status <> 'retired'
        UNION ALL SELECT i.hostname, 'booting', false FROM invited_machines i WHERE i.pool = p_pool
        UNION ALL SELECT f.hostname, 'absent', true FROM fleet_vms f
        WHERE f.pool = p_pool AND f.invited_at IS NOT NULL
          AND NOT EXISTS (SELECT FROM vms v WHERE v.hostname = f.hostname AND v.status <> 'retired')
          AND NOT EXISTS (SELECT FROM invited_machines i WHERE i.hostname = f.hostname)
    )
    SELECT (count(*) FILTER (WHERE status = 'in-use' AND NOT draining))::integer,
           waiting_for_machines(p_pool),
           (count(*) FILTER (WHERE status IN ('available', 'cleaning') AND NOT draining))::integer,
           coalesce(array_agg(hostname::text ORDER BY hostname) FILTER (WHERE status = 'booting' AND NOT draining), '{}'), count(*)::integer
    FROM machines
$$;

-- How long it takes to make machines of this pool that may boot together: as long as nine of ten boots took, ten minutes when none is
-- known, with what making them took.
CREATE OR REPLACE FUNCTION wave_time(p_pool text) RETURNS interval LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT make_interval(secs => coalesce(known.boots[ceil(0.9 * cardinality(known.boots))::integer], 600) + coalesce((
        SELECT percentile_cont(0.9) WITHIN GROUP (ORDER BY extract(epoch FROM o.finished_at - o.started_at)) FROM (
            SELECT * FROM operations WHERE kind = 'fleet grow' AND status = 'done' ORDER BY id DESC LIMIT 20) AS o), 0))
    FROM (SELECT booted_in(p_pool) AS boots) AS known
$$;

-- How long before they are wanted so many machines more have to be begun, where no more than p_at_once may boot at a time.
CREATE OR REPLACE FUNCTION lead_time(p_wave interval, p_machines integer, p_at_once integer) RETURNS interval LANGUAGE sql IMMUTABLE
RETURN p_wave * greatest(1, ceil(p_machines::double precision / p_at_once));

-- How many machines a pool of that size is to have: as many as are lent and waited for with the spare ones, or as the schedule asks
-- for that asks for most; within its limits. Null where they come and go by hand only.
CREATE OR REPLACE FUNCTION wanted_machines(p_pool text, p_size pool_size) RETURNS integer LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    scheduled integer;
BEGIN
    IF EXISTS (SELECT FROM pool_schedules s WHERE s.pool = p_pool) THEN
        scheduled := (SELECT max(s.machines) FROM scheduled(p_pool, p_size) s WHERE s.made_from <= clock());
    END IF;
    RETURN (SELECT least(p.max_machines, greatest(p.min_machines, p_size.lent + p_size.waiting + p.spare_machines, scheduled))
            FROM pools p WHERE p.name = p_pool AND p.max_machines IS NOT NULL);
END $$;

-- When an operation of this kind failed, if it was the last of its kind for this pool and that is less than five minutes ago: until
-- then it is not tried again. With its error.
CREATE OR REPLACE FUNCTION just_failed(p_kind text, p_pool text, OUT at timestamptz, OUT error text) LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT last.finished_at, last.error FROM (
        SELECT o.* FROM operations o WHERE o.kind IN ('fleet ' || p_kind, 'local ' || p_kind) AND o.pool = p_pool
        ORDER BY o.id DESC LIMIT 1) AS last
    WHERE last.status = 'failed' AND last.finished_at > clock() - interval '5 minutes'
$$;

-- What keeps a pool from getting machines that it is to have, in words; null when nothing does.
CREATE OR REPLACE FUNCTION growth_stopped(p_pool text) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT CASE WHEN p.paused THEN 'the pool is paused: lablink pools resume ' || p.name
        WHEN s.failed_boots >= least(3, p.boots_at_once) THEN counted(s.failed_boots, 'machine')
            || ' did not come, one after the other: mend what they are made of, then lablink pools resume ' || p.name
        WHEN o.at IS NOT NULL THEN 'making machines failed: ' || o.error || '; it is tried again in ' || until(o.at + interval '5 minutes') END
    FROM pools p LEFT JOIN pool_scaling s ON s.pool = p.name LEFT JOIN just_failed('grow', p.name) o ON true
    WHERE p.name = p_pool
$$;

-- Counts who came of those that were coming and who did not, which says whether their image is any good. What an admin took out
-- or holds is neither. The third that did not come stops the growth of the pool, and an event says so.
CREATE OR REPLACE FUNCTION count_boots(p_scaling pool_scaling, p_coming text[]) RETURNS pool_scaling LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    came   bigint;
    failed bigint;
    before text := growth_stopped(p_scaling.pool);
BEGIN
    SELECT count(*) FILTER (WHERE v.status IN ('available', 'in-use', 'cleaning')),
           count(*) FILTER (WHERE v.status = 'failed' AND v.reason !~ '^held by ' OR coalesce(v.status, 'retired') = 'retired' AND EXISTS (
               SELECT FROM join_tokens j WHERE j.hostname = c.hostname AND j.role IS NULL AND (j.missed_at IS NOT NULL OR j.expires_at <= clock())))
    INTO came, failed
    FROM unnest(p_scaling.coming) AS c (hostname) LEFT JOIN vms v ON v.hostname = c.hostname WHERE c.hostname <> ALL (p_coming);
    p_scaling.failed_boots := CASE WHEN came > 0 THEN 0 ELSE p_scaling.failed_boots END + failed;
    p_scaling.coming := p_coming;
    UPDATE pool_scaling SET (coming, failed_boots) = (p_coming, p_scaling.failed_boots) WHERE pool = p_scaling.pool;
    IF failed > 0 AND before IS NULL AND growth_stopped(p_scaling.pool) IS NOT NULL THEN
        PERFORM record_event('alert.boots', NULL, NULL, NULL, jsonb_build_object('pool', p_scaling.pool, 'failed', p_scaling.failed_boots));
    END IF;
    RETURN p_scaling;
END $$;

-- What is to be done now that a pool has as many machines as it is to have: so many more are to come, these are to go, and nobody
-- is or comes on them. What the caller may take away are p_own; null for the fleet's. Nothing for a pool that is paused, that is
-- not scaled, or that another one is at.
CREATE OR REPLACE FUNCTION scale(p_pool text, p_own text[] DEFAULT NULL, OUT grow integer, OUT leaving text[]) LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    this  pools;
    state pool_scaling;
    size  pool_size;
    goal  integer;
    have  integer;
BEGIN
    grow := 0;
    leaving := '{}';
    SELECT * INTO this FROM pools WHERE name = p_pool AND max_machines IS NOT NULL AND NOT paused FOR SHARE;
    INSERT INTO pool_scaling (pool) SELECT this.name WHERE this.name IS NOT NULL
        AND NOT EXISTS (SELECT FROM pool_scaling s WHERE s.pool = this.name) ON CONFLICT DO NOTHING;
    SELECT * INTO state FROM pool_scaling WHERE pool = this.name FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    size := size_of(p_pool);
    state := count_boots(state, size.coming);
    goal := wanted_machines(p_pool, size);
    have := size.lent + size.ready + cardinality(size.coming);
    IF goal > have THEN
        have := have + keep_leaving(state.leaving, goal - have);
        grow := may_grow(this, state, size.there, cardinality(size.coming), goal - have);
        UPDATE pool_scaling SET (surplus_since, most_wanted) = (NULL, NULL), booked_until = CASE WHEN grow > 0
            THEN greatest(booked_until, clock()) + make_interval(secs => 60.0 * grow / this.boots_at_once) ELSE booked_until END WHERE pool = p_pool;
    ELSE
        PERFORM let_go(this, state, goal, have, coalesce(p_own, ARRAY(SELECT hostname FROM fleet_vms WHERE wanted)));
    END IF;
    leaving := still_leaving(p_pool);
    IF (SELECT f.at FROM just_failed('shrink', p_pool) f) IS NOT NULL THEN
        leaving := '{}';
    END IF;
END $$;

-- How many of so many that are wanted may be begun now: within the pool's most, and as many at a time and a minute as it allows.
CREATE OR REPLACE FUNCTION may_grow(this pools, state pool_scaling, p_there integer, p_coming integer, p_more integer) RETURNS integer
LANGUAGE sql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT CASE WHEN growth_stopped(this.name) IS NULL THEN greatest(0, least(
        p_more, this.max_machines - p_there, this.boots_at_once - p_coming,
        floor(this.boots_at_once * extract(epoch FROM clock() + interval '1 minute' - greatest(state.booked_until, clock())) / 60)))::integer
        ELSE 0 END
$$;

-- Of machines that were to go and are there still, lends up to so many again. Returns how many.
CREATE OR REPLACE FUNCTION keep_leaving(p_leaving text[], p_number integer) RETURNS integer LANGUAGE sql
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT cardinality(undrain_vms(ARRAY(SELECT hostname FROM vms WHERE hostname = ANY (p_leaving) AND draining AND status = 'available'
                                         ORDER BY id LIMIT p_number FOR UPDATE SKIP LOCKED)))
$$;

-- Takes idle machines out of allocation once there were too many for long enough: as many as were too many all the time, those first
-- that nobody had for longest. A machine that a request locks at this moment is not idle.
CREATE OR REPLACE FUNCTION let_go(this pools, state pool_scaling, p_wanted integer, p_have integer, p_own text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    since timestamptz := CASE WHEN p_have > p_wanted THEN coalesce(state.surplus_since, clock()) END;
    most  integer     := CASE WHEN p_have > p_wanted THEN greatest(state.most_wanted, p_wanted) END;
    idle  text[]      := '{}';
BEGIN
    IF since <= clock() - make_interval(secs => this.shrink_after_seconds) THEN
        idle := ARRAY(SELECT hostname FROM vms WHERE pool = this.name AND status = 'available' AND NOT draining AND hostname = ANY (p_own)
                      ORDER BY updated_at, id LIMIT greatest(0, p_have - most) FOR UPDATE SKIP LOCKED);
        PERFORM drain_vms(idle);
        since := clock();
        most := p_wanted;
    END IF;
    UPDATE pool_scaling SET surplus_since = since, most_wanted = most, leaving = array_cat(state.leaving, idle) WHERE pool = this.name;
END $$;

-- The machines that were to go and are not gone: nobody is on them, and nobody wanted them back.
CREATE OR REPLACE FUNCTION still_leaving(p_pool text) RETURNS text[] LANGUAGE sql
SET search_path = pg_catalog, public, pg_temp AS $$
    UPDATE pool_scaling s SET leaving = ARRAY(
        SELECT each FROM unnest(s.leaving) AS each WHERE EXISTS (SELECT FROM vms v WHERE v.hostname = each AND v.draining AND v.status <> 'in-use')
            OR EXISTS (SELECT FROM fleet_vms f WHERE f.hostname = each AND NOT f.wanted) ORDER BY 1)
    WHERE pool = p_pool RETURNING leaving
$$;

-- Whoever changes machines locks them before their pool: so does an admin after whom some are lent again.
CREATE OR REPLACE FUNCTION lock_those_that_leave() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM FROM vms WHERE draining AND hostname IN (SELECT unnest(leaving) FROM pool_scaling) ORDER BY id FOR NO KEY UPDATE;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER pool_size_lock_trigger BEFORE UPDATE OF max_machines ON pools
    FOR EACH STATEMENT EXECUTE FUNCTION lock_those_that_leave();

-- A pool that is scaled no more: what was remembered of it goes. Its machines are locked, but for any that began to leave just now.
CREATE OR REPLACE FUNCTION follow_size() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM FROM vms WHERE draining AND hostname IN (SELECT unnest(leaving) FROM pool_scaling WHERE pool = NEW.name) FOR NO KEY UPDATE NOWAIT;
    DELETE FROM pool_scaling WHERE pool = NEW.name;
    RETURN NULL;
EXCEPTION WHEN lock_not_available THEN
    RAISE EXCEPTION 'a machine began to leave pool % at this moment', NEW.name USING ERRCODE = 'lock_not_available', HINT = 'Try again.';
END $$;

CREATE OR REPLACE TRIGGER pool_size_follow_trigger AFTER UPDATE ON pools
    FOR EACH ROW WHEN (NEW.max_machines IS NULL AND OLD.max_machines IS NOT NULL) EXECUTE FUNCTION follow_size();

-- What nobody remembers nobody takes away: the machines that were to go are lent again.
CREATE OR REPLACE FUNCTION follow_scaling() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM undrain_vms(OLD.leaving);
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER pool_scaling_follow_trigger AFTER DELETE ON pool_scaling
    FOR EACH ROW EXECUTE FUNCTION follow_scaling();
CREATE OR REPLACE TRIGGER pool_scaling_truncate_trigger BEFORE TRUNCATE ON pool_scaling
    FOR EACH STATEMENT EXECUTE FUNCTION delete_before_truncate();

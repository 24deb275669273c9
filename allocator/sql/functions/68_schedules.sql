-- A pool's hours: when they are, what they ask for, and which leases end with them.

-- The times of a schedule that are not over at p_from: of the eight days from then on, or of its date. They are what clocks show
-- where it is, so that summer time changes nothing; what clocks skip begins as much later.
CREATE OR REPLACE FUNCTION occurrences(schedule pool_schedules, p_from timestamptz) RETURNS TABLE (begins timestamptz, ends timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
    WITH dates AS (
        SELECT schedule.on_date AS day WHERE schedule.on_date IS NOT NULL
        UNION ALL SELECT here.today + n FROM (SELECT (p_from AT TIME ZONE schedule.time_zone)::date AS today) AS here, generate_series(-1, 8) AS n
        WHERE (ARRAY['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'])[extract(isodow FROM here.today + n)::integer] = ANY (schedule.days)
    ), times AS (
        SELECT (day + schedule.starts_at) AT TIME ZONE schedule.time_zone AS begins,
               (day + (schedule.ends_at < schedule.starts_at)::integer + schedule.ends_at) AT TIME ZONE schedule.time_zone AS ends FROM dates
    )
    SELECT t.begins, t.ends FROM times t WHERE t.ends > p_from AND t.ends > t.begins ORDER BY t.begins
$$;

-- What the schedules of a pool of that size ask for, now and next: from when on machines are made for it, and when it is over.
CREATE OR REPLACE FUNCTION scheduled(p_pool text, p_size pool_size) RETURNS TABLE (
    name text, machines integer, made_from timestamptz, begins timestamptz, ends timestamptz, time_zone text, ends_leases boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
    WITH pool AS MATERIALIZED (
        SELECT wave_time(p_pool) AS wave, p.boots_at_once, p.max_machines AS most, p_size.lent + p_size.ready + cardinality(p_size.coming) AS serve
        FROM pools p WHERE p.name = p_pool
    )
    SELECT s.name, s.machines, o.begins - lead_time(pool.wave, least(s.machines, pool.most) - pool.serve, pool.boots_at_once), o.begins, o.ends, s.time_zone,
           s.ends_leases
    FROM pool, pool_schedules s, occurrences(s, clock()) o WHERE s.pool = p_pool ORDER BY o.begins, s.name
$$;

-- A schedule goes by the clocks of its pool unless it says by whose; hours that were over before it was made end nobody's lease.
CREATE OR REPLACE FUNCTION guard_schedule() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM pool_named(NEW.pool);
    IF EXISTS (SELECT FROM pool_schedules s WHERE (s.pool, s.name) = (NEW.pool, NEW.name) AND s.id <> NEW.id) THEN
        RAISE EXCEPTION 'pool % has a schedule % already', NEW.pool, NEW.name USING ERRCODE = 'unique_violation',
            HINT = format('Remove it first (lablink schedules remove %s --pool %s), or give another name.', NEW.name, NEW.pool);
    END IF;
    NEW.time_zone := coalesce(NEW.time_zone, (SELECT p.time_zone FROM pools p WHERE p.name = NEW.pool));
    NEW.warned_of := clock();
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER schedule_guard_trigger BEFORE INSERT OR UPDATE OF pool, name, days, on_date, starts_at, ends_at, time_zone, ends_leases
    ON pool_schedules
    FOR EACH ROW EXECUTE FUNCTION guard_schedule();

-- The history says which schedules came, changed and went.
CREATE OR REPLACE FUNCTION record_schedule() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    this pool_schedules := coalesce(NEW, OLD);
BEGIN
    PERFORM record_event(CASE TG_OP WHEN 'INSERT' THEN 'schedule.added' WHEN 'UPDATE' THEN 'schedule.changed' ELSE 'schedule.removed' END,
                         NULL, NULL, NULL, to_jsonb(this) - 'id' - 'warned_of');
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER schedule_record_trigger AFTER INSERT OR DELETE OR
    UPDATE OF pool, name, days, on_date, starts_at, ends_at, time_zone, machines, ends_leases ON pool_schedules FOR EACH ROW EXECUTE FUNCTION record_schedule();

-- The ends that leases may not pass: of hours that have begun; and the last that passed while nobody looked, however long ago.
-- Whoever was not warned has the pool's time for warnings yet.
CREATE OR REPLACE FUNCTION lease_ends(p_pool text DEFAULT NULL) RETURNS TABLE (
    schedule bigint, pool text, name text, hours_end timestamptz, until timestamptz, tell boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT DISTINCT ON (s.id, o.ends > clock()) s.id, s.pool, s.name, o.ends, CASE WHEN o.ends > clock() THEN o.ends ELSE clock() + w.warning END,
           o.ends > s.warned_of AND o.ends - w.warning <= clock()
    FROM pool_schedules s JOIN pools p ON p.name = s.pool, LATERAL (SELECT make_interval(secs => p.warn_seconds) AS warning) AS w,
         occurrences(s, CASE WHEN s.on_date IS NULL THEN clock() - interval '170 hours' ELSE least(s.warned_of, clock()) END) o  -- a week and what clocks change by
    WHERE s.ends_leases AND s.pool = coalesce(p_pool, s.pool) AND NOT p.paused AND o.begins <= clock() AND (o.ends > clock() OR o.ends > s.warned_of)
    ORDER BY s.id, o.ends > clock(), o.ends DESC
$$;

-- Until when the hours of the pool last that have begun, if leases end with them.
CREATE OR REPLACE FUNCTION hours_end(p_pool text) RETURNS timestamptz LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM pool_schedules s WHERE s.pool = p_pool AND s.ends_leases) THEN
        RETURN (SELECT min(e.until) FROM lease_ends(p_pool) e);
    END IF;
    RETURN NULL;
END $$;

-- The leases that last longer than the hours of their pool that they began in.
CREATE OR REPLACE FUNCTION leases_beyond(p_pool text, p_hours_end timestamptz, p_until timestamptz) RETURNS SETOF uuid LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT l.id FROM leases l WHERE l.pool = p_pool AND l.live AND l.kind <> 'hold' AND l.expires_at > p_until AND l.assigned_at < p_hours_end
$$;

-- Leases that would last longer than the hours of their pool end with them: their pages count down to that, and warn. When it is
-- time for warnings and none is left that lasts longer, also of those that somebody had locked, the history has how many there are.
CREATE OR REPLACE FUNCTION sweep_schedules() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    this record;
    due  uuid[];
    n    integer := 0;
BEGIN
    IF NOT sweep_begins('schedules') THEN
        RETURN 0;
    END IF;
    FOR this IN SELECT * FROM lease_ends() ORDER BY until, schedule LOOP
        due := lock_leases(ARRAY(SELECT leases_beyond(this.pool, this.hours_end, this.until) LIMIT 1000));
        UPDATE leases SET expires_at = this.until WHERE id = ANY (due) AND expires_at > this.until;
        n := n + cardinality(due);
        IF this.tell AND NOT EXISTS (SELECT leases_beyond(this.pool, this.hours_end, this.until)) THEN
            UPDATE pool_schedules SET warned_of = this.hours_end WHERE id = this.schedule;
            PERFORM record_event('schedule.ends', NULL, NULL, NULL, jsonb_build_object('pool', this.pool, 'name', this.name, 'until', this.until,
                'leases', (SELECT count(*) FROM leases l WHERE l.pool = this.pool AND l.live AND l.expires_at <= this.until)));
        END IF;
    END LOOP;
    RETURN n;
END $$;

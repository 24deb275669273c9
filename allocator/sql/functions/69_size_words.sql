-- What is said of a pool's size: how many machines are wanted, what keeps them from coming, and what its schedules ask for next.

-- The first hours of a pool of that size that are not over, by the clocks that they go by.
CREATE OR REPLACE FUNCTION next_hours(p_pool text, p_size pool_size) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT format('%s for %s %suntil %s (%s)%s', counted(h.machines, 'machine'), h.name,
        CASE WHEN h.begins > clock() THEN format('from %s ', to_char(h.begins AT TIME ZONE h.time_zone, 'FMDy FMDD Mon HH24:MI')) ELSE '' END,
        to_char(h.ends AT TIME ZONE h.time_zone, CASE WHEN h.begins > clock() THEN 'HH24:MI' ELSE 'FMDy FMDD Mon HH24:MI' END), h.time_zone,
        CASE WHEN h.ends_leases THEN '; leases end then' ELSE '' END)
    FROM scheduled(p_pool, p_size) h ORDER BY h.begins, h.machines DESC LIMIT 1
$$;

-- A pool's size as everybody may see it; `missing` are machines that are wanted and not even on their way. Nulls where machines
-- come and go by hand only. `size` is what it was made of, for that is the dearest to know.
CREATE OR REPLACE FUNCTION size_status(
    p_pool text, OUT paused boolean, OUT wanted integer, OUT missing integer, OUT stopped text, OUT hours text, OUT size pool_size)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    scaled    boolean;
    scheduled boolean := EXISTS (SELECT FROM pool_schedules s WHERE s.pool = p_pool);
BEGIN
    SELECT p.paused, p.max_machines IS NOT NULL INTO paused, scaled FROM pools p WHERE p.name = p_pool;
    IF scaled OR scheduled THEN
        size := size_of(p_pool);
    END IF;
    IF scaled THEN
        wanted := wanted_machines(p_pool, size);
        missing := greatest(0, wanted - size.lent - size.ready - cardinality(size.coming));
        stopped := growth_stopped(p_pool);
    END IF;
    IF scheduled THEN
        hours := next_hours(p_pool, size);
    END IF;
END $$;

-- Why a pool has as many machines as it has, and whether it serves anybody. What admins can do and what AWS said is for admins.
CREATE OR REPLACE FUNCTION why_size(p_pool text, p_for_admin boolean) RETURNS TABLE (what text, holds boolean, detail text) LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    this  pools;
    size  pool_size;
    shown record;
    since timestamptz := (SELECT s.surplus_since FROM pool_scaling s WHERE s.pool = p_pool);
BEGIN
    SELECT * INTO this FROM pools p WHERE p.name = p_pool;
    SELECT * INTO shown FROM size_status(p_pool);
    IF this.paused THEN
        RETURN QUERY VALUES ('its pool is not paused', false, 'paused for ' || since(this.paused_at)
            || CASE WHEN p_for_admin THEN ': lablink pools resume ' || p_pool ELSE '; nobody''s time to wait passes' END);
    END IF;
    IF this.max_machines IS NOT NULL THEN
        size := shown.size;
        RETURN QUERY VALUES ('its pool has the machines that are wanted', size.lent + size.ready >= shown.wanted, format(
            '%s wanted, %s to %s allowed: %s lent, %s free or being cleaned, %s on their way%s', shown.wanted, this.min_machines, this.max_machines,
            size.lent, size.ready, cardinality(size.coming),
            CASE WHEN since IS NOT NULL THEN '; idle ones go in ' || until(since + make_interval(secs => this.shrink_after_seconds)) END));
        IF shown.missing > 0 THEN
            RETURN QUERY VALUES ('machines can come', shown.stopped IS NULL AND size.there < this.max_machines, CASE
                WHEN shown.stopped IS NOT NULL THEN CASE WHEN p_for_admin THEN shown.stopped ELSE 'not at the moment: an admin has to look' END
                WHEN size.there >= this.max_machines THEN 'there are as many as there may be, with those that failed or leave'
                ELSE format('%s at a time, and a minute', this.boots_at_once) END);
        END IF;
    END IF;
    RETURN QUERY SELECT 'its hours', NULL::boolean, shown.hours WHERE shown.hours IS NOT NULL;
END $$;

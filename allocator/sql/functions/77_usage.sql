-- How much the machines are used: a row for each pool and day (UTC). Holds are left out, for nobody asked for them.

-- Counts one day anew, from the leases that there are.
CREATE OR REPLACE FUNCTION count_usage(p_day date) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    began  timestamptz := p_day::timestamp AT TIME ZONE 'UTC';
    ended  timestamptz := (p_day + 1)::timestamp AT TIME ZONE 'UTC';
BEGIN
    DELETE FROM usage_by_day WHERE day = p_day;
    INSERT INTO usage_by_day (pool, day, leases, people, hours_lent, median_wait_seconds, failures, under_way, counted_at)
    WITH near AS (
        SELECT l.*, lent_within(l, began, ended) AS lent FROM leases l
        WHERE NOT live AND tstzrange(least(created_at, ended_at), greatest(created_at, ended_at), '[]') && tstzrange(began, ended)
        UNION ALL SELECT l.*, lent_within(l, began, ended) FROM leases l WHERE live AND created_at < ended
    ), facts AS (
        SELECT pool, email, status, live, created_at >= began AND created_at < ended AS asked,
               extract(epoch FROM assigned_at - created_at)::float8 AS waited, lent
        FROM near WHERE kind <> 'hold'
    )
    SELECT pool, p_day, count(*) FILTER (WHERE asked), count(DISTINCT lower(email)) FILTER (WHERE asked),
           round(coalesce(sum(lent) FILTER (WHERE lent > 0), 0) / 3600, 2),
           round((percentile_cont(0.5) WITHIN GROUP (ORDER BY waited) FILTER (WHERE asked))::numeric, 1),
           count(*) FILTER (WHERE asked AND status = 'failed'), count(*) FILTER (WHERE asked AND live), clock()
    FROM facts WHERE asked OR lent > 0 GROUP BY pool;
END $$;

-- The days that can have changed since those before p_since were counted, in the order in which to count them; then those
-- before, of which a lease was not over. A transaction may be open over midnight, so yesterday always counts.
CREATE OR REPLACE FUNCTION days_to_count(p_since date, p_today date) RETURNS SETOF date LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT day FROM (
        SELECT p_since + n AS day, NULL::timestamptz AS counted_at FROM generate_series(0, p_today - p_since) AS n
        UNION ALL
        SELECT day, min(counted_at) FROM public.usage_by_day WHERE under_way > 0 AND day < p_since GROUP BY day) AS days
    ORDER BY counted_at NULLS FIRST, day;
END;

-- Counts the days that can have changed, every five minutes: one at least, and what a second is not enough for in the next
-- round. Returns how many days it counted.
CREATE OR REPLACE FUNCTION sweep_usage() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    today  date := (clock() AT TIME ZONE 'UTC')::date;
    so_far usage_counting;
    this   date;
    n      integer := 0;
BEGIN
    IF NOT sweep_begins('usage') THEN
        RETURN 0;
    END IF;
    SELECT * INTO so_far FROM usage_counting;
    IF NOT EXISTS (SELECT FROM usage_by_day) THEN  -- not counted yet, or emptied by hand
        so_far.since := (SELECT min(created_at) AT TIME ZONE 'UTC' FROM leases WHERE kind <> 'hold');
    ELSIF so_far.counted_at > clock() - interval '5 minutes' THEN
        RETURN 0;
    END IF;
    so_far := ROW(true, least(so_far.since, today - 1), clock());
    FOR this IN SELECT * FROM days_to_count(so_far.since, today) LOOP
        IF n > 0 AND clock_timestamp() > statement_timestamp() + interval '1 second' THEN
            so_far.counted_at := NULL;
            EXIT;
        END IF;
        PERFORM count_usage(this);
        so_far.since := greatest(so_far.since, least(this + 1, today - 1));
        n := n + 1;
    END LOOP;
    UPDATE usage_counting SET since = so_far.since, counted_at = so_far.counted_at;
    RETURN n;
END $$;

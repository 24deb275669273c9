-- Back to version 3: use is counted all at once. What else is of that version comes with its migrate.
DROP FUNCTION days_to_count(date, date), count_usage(date), unsealed_events(timestamptz),
    broken_history(timestamptz);
DROP TABLE usage_by_day, usage_counting;
DROP INDEX leases_over;

-- Holds are left out: nobody asked for them.
CREATE MATERIALIZED VIEW usage_by_day AS
WITH asked AS (
    SELECT pool, (created_at AT TIME ZONE 'UTC')::date AS day, count(*) AS leases, count(DISTINCT lower(email)) AS people,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM assigned_at - created_at)::float8) AS wait,
           count(*) FILTER (WHERE status = 'failed') AS failures
    FROM leases WHERE kind <> 'hold' GROUP BY 1, 2
), lent AS (
    SELECT l.pool, d.day::date AS day,
           sum(extract(epoch FROM least(l.till, (d.day + interval '1 day') AT TIME ZONE 'UTC')
                                  - greatest(l.assigned_at, d.day AT TIME ZONE 'UTC'))) / 3600 AS hours
    FROM (SELECT pool, assigned_at, coalesce(ended_at, clock()) AS till FROM leases
          WHERE kind <> 'hold' AND assigned_at IS NOT NULL) l
    CROSS JOIN LATERAL generate_series(date_trunc('day', l.assigned_at AT TIME ZONE 'UTC'),
                                       l.till AT TIME ZONE 'UTC', interval '1 day') AS d (day)
    GROUP BY 1, 2
)
SELECT pool, day, coalesce(a.leases, 0) AS leases, coalesce(a.people, 0) AS people,
       round(coalesce(l.hours, 0), 2) AS hours_lent, round(a.wait::numeric, 1) AS median_wait_seconds,
       coalesce(a.failures, 0) AS failures, clock() AS counted_at
FROM asked a FULL JOIN lent l USING (pool, day);
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX usage_by_day_once ON usage_by_day (pool, day);
COMMENT ON MATERIALIZED VIEW usage_by_day IS 'Per pool and day (UTC): who asked, how long they waited, what was lent. Counted anew every few minutes.';

-- Counts the use anew when it was last counted five minutes ago. Who reads it meanwhile reads the numbers of before.
CREATE OR REPLACE FUNCTION sweep_usage() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF NOT sweep_begins('usage')
       OR EXISTS (SELECT FROM usage_by_day WHERE counted_at > clock() - interval '5 minutes') THEN
        RETURN 0;
    END IF;
    REFRESH MATERIALIZED VIEW CONCURRENTLY usage_by_day;
    RETURN (SELECT count(*) FROM usage_by_day);
END $$;

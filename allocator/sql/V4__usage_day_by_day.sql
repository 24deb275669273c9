-- Use is counted day by day, so that what it costs does not grow with the history.

-- squawk-ignore ban-drop-view
DROP MATERIALIZED VIEW usage_by_day;
CREATE TABLE usage_by_day (
    pool                text,
    day                 date,
    leases              bigint NOT NULL,
    people              bigint NOT NULL,
    hours_lent          numeric NOT NULL,
    median_wait_seconds numeric,
    failures            bigint NOT NULL,
    under_way           bigint NOT NULL,
    counted_at          timestamptz NOT NULL,
    PRIMARY KEY (pool, day)
);
COMMENT ON TABLE usage_by_day IS 'Per pool and day (UTC): who asked, how long they waited, what was lent. Emptied, it is counted anew.';
COMMENT ON COLUMN usage_by_day.under_way IS 'How many of the leases are not over yet: until none is, the day is counted again and again.';

CREATE TABLE usage_counting (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    since      date,
    counted_at timestamptz
);
INSERT INTO usage_counting DEFAULT VALUES;
COMMENT ON TABLE usage_counting IS 'Days before `since` were counted after they were over; null: none was.';

-- These read the whole history; what takes their place reads as much of it as is asked for.
-- squawk-ignore ban-drop-function
DROP FUNCTION IF EXISTS unsealed_events();
-- squawk-ignore ban-drop-function
DROP FUNCTION IF EXISTS broken_history();

-- Which leases a day has. Two transactions may have seen the clock the other way round.
-- In the migration's transaction it cannot be built concurrently; a million leases take some seconds.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX leases_over ON leases USING gist (tstzrange(least(created_at, ended_at), greatest(created_at, ended_at), '[]')) WHERE NOT live;

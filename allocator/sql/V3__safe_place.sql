-- The safe place: a history in months that cannot be changed unseen, and what people read of all that happened.

-- The history, a partition a month (UTC). Its key has the time in it because a partitioned table's must; ids alone are
-- unique by their sequence, and `lablink verify` says when one is not.
-- The new table has the name again before anybody can see that it was gone.
-- squawk-ignore renaming-table
ALTER TABLE events RENAME TO events_before;
-- squawk-ignore renaming-object
ALTER SEQUENCE events_id_seq RENAME TO events_before_id_seq;

CREATE TABLE events (
    id          bigint NOT NULL,
    at          timestamptz NOT NULL DEFAULT clock(),
    actor       text NOT NULL,
    db_role     name NOT NULL DEFAULT session_user,
    client_addr inet DEFAULT inet_client_addr(),
    kind        text NOT NULL,
    vm_id       integer,
    hostname    varchar(255),
    lease_id    uuid,
    detail      jsonb NOT NULL DEFAULT '{}'
) PARTITION BY RANGE (at);
COMMENT ON TABLE events IS 'What happened, who did it and why; written by triggers in the transaction of the change, never changed.';
CREATE TABLE events_default PARTITION OF events DEFAULT;

-- The months that are needed: those of the events there are, this one, and two ahead.
DO $$
DECLARE
    this date;
BEGIN
    FOR this IN
        SELECT date_trunc('month', at AT TIME ZONE 'UTC') FROM events_before
        UNION SELECT date_trunc('month', clock() AT TIME ZONE 'UTC') + make_interval(months => n) FROM generate_series(0, 2) n
    LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF events FOR VALUES FROM (%L) TO (%L)', to_char(this, '"events_"YYYY_MM'),
                       this::timestamp AT TIME ZONE 'UTC', (this + interval '1 month') AT TIME ZONE 'UTC');
    END LOOP;
END $$;

INSERT INTO events (id, at, actor, db_role, client_addr, kind, vm_id, hostname, lease_id, detail)
SELECT id, at, actor, db_role, client_addr, kind, vm_id, hostname, lease_id, detail FROM events_before;

-- Views and functions that read the history read this one from now on.
DO $$
DECLARE
    reader oid;
BEGIN
    FOR reader IN SELECT DISTINCT r.ev_class FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
                  WHERE d.classid = 'pg_rewrite'::regclass AND d.refobjid = 'events_before'::regclass LOOP
        EXECUTE format('CREATE OR REPLACE VIEW %s AS %s', reader::regclass,
                       replace(pg_get_viewdef(reader), 'events_before', 'events'));
    END LOOP;
    FOR reader IN SELECT DISTINCT objid FROM pg_depend
                  WHERE classid = 'pg_proc'::regclass AND refobjid = 'events_before'::regclass LOOP
        EXECUTE replace(pg_get_functiondef(reader), 'events_before', 'events');
    END LOOP;
END $$;

CREATE SEQUENCE events_id_seq AS bigint OWNED BY events.id;
SELECT setval('events_id_seq', last_value, is_called) FROM events_before_id_seq;
ALTER TABLE events ALTER COLUMN id SET DEFAULT nextval('events_id_seq');
-- Its rows are in the months by now.
-- squawk-ignore ban-drop-table
DROP TABLE events_before;

-- A partitioned table's key and indexes cannot be built concurrently; a million events take some seconds.
-- squawk-ignore adding-serial-primary-key-field
ALTER TABLE events ADD PRIMARY KEY (id, at);
CREATE INDEX events_of_lease ON events (lease_id, id) WHERE lease_id IS NOT NULL;
CREATE INDEX events_of_vm ON events (vm_id, id) WHERE vm_id IS NOT NULL;
CREATE INDEX events_of_hostname ON events (hostname, id) WHERE hostname IS NOT NULL;

CREATE TABLE event_seals (
    seal        bigint PRIMARY KEY CHECK (seal > 0),
    month       date NOT NULL,
    ids         int8multirange NOT NULL CHECK (NOT isempty(ids)),
    events      bigint NOT NULL CHECK (events > 0),
    rows_sha256 bytea NOT NULL CHECK (octet_length(rows_sha256) = 32),
    prints      bytea NOT NULL CHECK (octet_length(prints) = 8 * events),
    previous    bytea NOT NULL,
    sha256      bytea NOT NULL CHECK (octet_length(sha256) = 32),
    sealed_at   timestamptz NOT NULL
);
ALTER TABLE event_seals ALTER COLUMN prints SET STORAGE EXTERNAL;
CREATE INDEX event_seals_last_id ON event_seals (upper(ids));
COMMENT ON TABLE event_seals IS 'A chain over the history: each seal covers some events of one month and the seal before it.';
COMMENT ON COLUMN event_seals.rows_sha256 IS 'SHA-256 of the SHA-256s of the events'' lines (event_line), in the order of their ids.';
COMMENT ON COLUMN event_seals.prints IS 'The first eight bytes of each event''s SHA-256: they tell which one was changed.';
COMMENT ON COLUMN event_seals.sha256 IS 'SHA-256 of all the others (seal_sha256), so also of the seal before.';

CREATE TABLE event_sealing (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    settled  bigint NOT NULL DEFAULT 0,
    seen     bigint NOT NULL DEFAULT 0,
    until    xid8
);
INSERT INTO event_sealing DEFAULT VALUES;
COMMENT ON TABLE event_sealing IS 'How far the history is sealed for good: no event with an id up to settled can appear any more.';
COMMENT ON COLUMN event_sealing.seen IS 'Ids up to this one had been given out; once all transactions before `until` are over, they are settled.';

CREATE TABLE event_archives (
    archive     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    month       date NOT NULL,
    ids         int8multirange NOT NULL,
    events      bigint NOT NULL,
    file        text NOT NULL,
    sha256      bytea NOT NULL CHECK (octet_length(sha256) = 32),
    archived_at timestamptz NOT NULL DEFAULT clock(),
    archived_by text NOT NULL
);
COMMENT ON TABLE event_archives IS 'A month of the history that was moved into a file; its seals are still here.';

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

-- Machines have no right to this table; should they ever be given one, they still see no row of it.
ALTER TABLE vms ENABLE ROW LEVEL SECURITY;
CREATE POLICY service_and_dashboards_see_all ON vms FOR SELECT TO lablink_app, lablink_reader USING (true);

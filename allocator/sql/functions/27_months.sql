-- The months of the history, each a partition: made before they are needed, dropped once they are in a file.

-- The month of a moment, as its first day. Months are UTC's.
CREATE OR REPLACE FUNCTION event_month(p_at timestamptz) RETURNS date LANGUAGE sql IMMUTABLE
RETURN date_trunc('month', p_at AT TIME ZONE 'UTC')::date;

-- The months that have a partition.
CREATE OR REPLACE FUNCTION event_months() RETURNS TABLE (month date, partition regclass) LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT to_date(c.relname, '"events_"YYYY_MM'), c.oid::regclass
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'public.events'::regclass AND c.relname ~ '^events_\d{4}_\d\d$';
END;

-- Makes the partition of a month, with the events in it that the default one caught. Waits for nobody: attaching keeps no
-- writer waiting, but whoever reads the default partition in an open transaction keeps it from being attached.
CREATE OR REPLACE FUNCTION add_event_month(p_month date) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
    partition text := to_char(p_month, '"events_"YYYY_MM');
    since     timestamptz := p_month::timestamp AT TIME ZONE 'UTC';
    till      timestamptz := (p_month + interval '1 month') AT TIME ZONE 'UTC';
BEGIN
    LOCK TABLE events_default IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('CREATE TABLE public.%I (LIKE events INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES)', partition);
    IF EXISTS (SELECT FROM events_default WHERE at >= since AND at < till) THEN
        ALTER TABLE events_default DISABLE TRIGGER USER;
        EXECUTE format('WITH moved AS (DELETE FROM events_default WHERE at >= $1 AND at < $2 RETURNING *)
                        INSERT INTO %I SELECT * FROM moved', partition) USING since, till;
        ALTER TABLE events_default ENABLE TRIGGER USER;
    END IF;
    EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', partition, since, till);
END $$;

-- Months whose guard is missing, off, or not what it was. Type 58: before UPDATE, DELETE and TRUNCATE, once a statement.
CREATE OR REPLACE FUNCTION unguarded_months() RETURNS TABLE (partition regclass) LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT i.inhrelid::regclass FROM pg_inherits i
    WHERE i.inhparent = 'public.events'::regclass AND NOT EXISTS (
        SELECT FROM pg_trigger t WHERE t.tgrelid = i.inhrelid AND t.tgname = 'events_guard_trigger' AND t.tgenabled = 'O'
            AND t.tgfoid = 'public.guard_events()'::regprocedure AND t.tgtype = 58 AND t.tgqual IS NULL);
END;

-- Statement triggers guard the table that is named, so every partition has one of its own.
CREATE OR REPLACE FUNCTION guard_event_months() RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    month regclass;
BEGIN
    FOR month IN SELECT partition FROM unguarded_months() LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER events_guard_trigger BEFORE UPDATE OR DELETE OR TRUNCATE ON %s '
                       'FOR EACH STATEMENT EXECUTE FUNCTION guard_events()', month);
    END LOOP;
END $$;
SELECT guard_event_months();

-- Sees to it that this month and the next two have a partition, and whatever month the default one has caught.
CREATE OR REPLACE FUNCTION sweep_months() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    months  date[];
    missing date;
BEGIN
    IF NOT sweep_begins('months') THEN
        RETURN 0;
    END IF;
    months := ARRAY(
        (SELECT (event_month(clock()) + make_interval(months => ahead))::date FROM generate_series(0, 2) AS ahead
         UNION SELECT event_month(at) FROM events_default)
        EXCEPT SELECT month FROM event_months());
    FOREACH missing IN ARRAY months LOOP
        PERFORM add_event_month(missing);
    END LOOP;
    PERFORM guard_event_months();
    RETURN cardinality(months);
EXCEPTION WHEN lock_not_available THEN
    RETURN 0;
END $$;

-- Drops the partition of a month whose p_events events are in a file, and writes that down. Refuses when the file cannot
-- have them all.
CREATE OR REPLACE FUNCTION archive_month(p_month date, p_file text, p_sha256 bytea, p_events bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    partition regclass := (SELECT m.partition FROM event_months() m WHERE m.month = p_month);
    found     bigint;
    ids       int8multirange;
BEGIN
    LOCK TABLE events IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('SELECT count(*), range_agg(int8range(id, id, ''[]'')) FROM %s', partition) INTO found, ids;
    IF found IS DISTINCT FROM p_events THEN
        RAISE EXCEPTION '% has % events, the file has %', to_char(p_month, 'YYYY-MM'), found, p_events USING ERRCODE = 'LL003',
            HINT = 'Somebody wrote to that month just now. Try again.';
    END IF;
    EXECUTE format('ALTER TABLE events DETACH PARTITION %s', partition);
    EXECUTE format('DROP TABLE %s', partition);
    INSERT INTO event_archives (month, ids, events, file, sha256, archived_by)
    VALUES (p_month, coalesce(ids, '{}'), found, p_file, p_sha256, actor());
    PERFORM record_event('history.archived', NULL, NULL, NULL, jsonb_build_object(
        'month', to_char(p_month, 'YYYY-MM'), 'events', found, 'file', p_file, 'sha256', encode(p_sha256, 'hex')));
END $$;

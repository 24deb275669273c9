-- The history: only added to, kept by the month, and put into words that no setting of a session changes.

-- Whoever must change it all the same says why, which becomes an event: SET lablink.rewrite_history = 'why'. The seals
-- show it either way. TRUNCATE would take that event with it.
CREATE OR REPLACE FUNCTION guard_events() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    why text := btrim(current_setting('lablink.rewrite_history', true));
BEGIN
    IF coalesce(why, '') = '' OR TG_OP = 'TRUNCATE' THEN
        RAISE EXCEPTION 'the history is never changed' USING ERRCODE = 'LL003',
            HINT = 'Add an event that corrects the earlier one. Old months can go: lablink db archive --before MONTH --to DIR';
    END IF;
    PERFORM record_event('history.rewritten', NULL, NULL, NULL,
                         jsonb_build_object('table', TG_TABLE_NAME, 'statement', lower(TG_OP), 'why', why));
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER events_guard_trigger BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION guard_events();
CREATE OR REPLACE TRIGGER seals_guard_trigger BEFORE UPDATE OR DELETE OR TRUNCATE ON event_seals
    FOR EACH STATEMENT EXECUTE FUNCTION guard_events();
CREATE OR REPLACE TRIGGER archives_guard_trigger BEFORE UPDATE OR DELETE OR TRUNCATE ON event_archives
    FOR EACH STATEMENT EXECUTE FUNCTION guard_events();

-- The month of a moment, as its first day. Months are UTC's.
CREATE OR REPLACE FUNCTION event_month(p_at timestamptz) RETURNS date LANGUAGE sql IMMUTABLE
RETURN date_trunc('month', p_at AT TIME ZONE 'UTC')::date;

-- An event as one line, the same under every time zone, date style, encoding and version of PostgreSQL. What is sealed
-- and archived is this line, so this function can never change.
CREATE OR REPLACE FUNCTION event_line(e events) RETURNS text LANGUAGE sql STABLE
RETURN jsonb_build_array(e.id, extract(epoch FROM e.at), e.actor, e.db_role, e.client_addr::text, e.kind, e.vm_id,
                         e.hostname, e.lease_id, e.detail)::text;

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

-- Statement triggers guard the table that is named, so every partition has one of its own.
CREATE OR REPLACE FUNCTION guard_event_months() RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    partition regclass;
BEGIN
    FOR partition IN
        SELECT inhrelid FROM pg_inherits WHERE inhparent = 'public.events'::regclass AND NOT EXISTS (
            SELECT FROM pg_trigger WHERE tgrelid = inhrelid AND tgname = 'events_guard_trigger')
    LOOP
        EXECUTE format('CREATE TRIGGER events_guard_trigger BEFORE UPDATE OR DELETE OR TRUNCATE ON %s '
                       'FOR EACH STATEMENT EXECUTE FUNCTION guard_events()', partition);
    END LOOP;
END $$;
SELECT guard_event_months();

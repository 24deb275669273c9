-- The history: only added to, and put into words that no setting of a session changes. Its months are in the next file.

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

-- An event as one line, the same under every time zone, date style, encoding and version of PostgreSQL. What is sealed
-- and archived is this line, so this function can never change.
CREATE OR REPLACE FUNCTION event_line(e events) RETURNS text LANGUAGE sql STABLE
RETURN jsonb_build_array(e.id, extract(epoch FROM e.at), e.actor, e.db_role, e.client_addr::text, e.kind, e.vm_id,
                         e.hostname, e.lease_id, e.detail)::text;

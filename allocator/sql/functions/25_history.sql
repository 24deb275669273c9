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

-- An event of which nobody says who did it: while many machines speak, the one that it happened to. Else somebody adds it by hand: who
-- they are is filled in, and its id is a new one, for what is sealed is closed.
CREATE OR REPLACE FUNCTION guard_new_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.actor IS NULL AND public.caller() = '*' THEN
        NEW.actor := NEW.hostname;
        RETURN NEW;
    ELSIF NEW.actor IS NOT NULL AND session_user <> current_user THEN
        RETURN NEW;
    ELSIF NEW.kind IS NULL THEN
        RAISE EXCEPTION 'an event says what happened' USING ERRCODE = 'LL003',
            HINT = 'Name its kind: INSERT INTO events (kind, hostname, detail) VALUES (''admin.note'', ''vm-1'', ''{"text": "…"}'')';
    ELSIF NEW.id <= (SELECT settled FROM public.event_sealing) OR NEW.id > (SELECT last_value FROM public.events_id_seq)
          OR EXISTS (SELECT FROM public.events WHERE id = NEW.id) THEN
        RAISE EXCEPTION 'an event cannot have the id % any more, or not yet', NEW.id USING ERRCODE = 'LL003',
            HINT = 'Leave the id out of the INSERT.';
    END IF;
    NEW.actor := coalesce(NEW.actor, public.actor());
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER events_by_hand_trigger BEFORE INSERT ON events
    FOR EACH ROW WHEN (NEW.actor IS NULL OR pg_trigger_depth() = 0)
    EXECUTE FUNCTION guard_new_event();

-- An event as one line, the same under every time zone, date style, encoding and version of PostgreSQL. What is sealed
-- and archived is this line, so this function can never change.
CREATE OR REPLACE FUNCTION event_line(e events) RETURNS text LANGUAGE sql STABLE
RETURN jsonb_build_array(e.id, extract(epoch FROM e.at), e.actor, e.db_role, e.client_addr::text, e.kind, e.vm_id,
                         e.hostname, e.lease_id, e.detail)::text;

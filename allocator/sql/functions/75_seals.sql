-- Seals: a chain over the history, made behind it, so that nobody who writes an event ever waits for another. The head of
-- the chain, kept elsewhere (the log, backups), shows that all of it up to there is what it was.

-- What a seal's sha256 must be.
CREATE OR REPLACE FUNCTION seal_sha256(s event_seals) RETURNS bytea LANGUAGE sql STABLE
RETURN sha256(convert_to(jsonb_build_array(
    s.seal, extract(epoch FROM s.month::timestamp), s.ids::text, s.events, extract(epoch FROM s.sealed_at),
    encode(s.rows_sha256, 'hex'), encode(s.previous, 'hex'))::text, 'UTF8'));

-- The newest seal: who keeps its number and hash can tell later whether anything up to it was changed. No row before the
-- first seal.
CREATE OR REPLACE FUNCTION history_head() RETURNS TABLE (seal bigint, sha256 text, events bigint) LANGUAGE sql STABLE
SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT s.seal, encode(s.sha256, 'hex'), (SELECT sum(every.events)::bigint FROM public.event_seals every)
    FROM public.event_seals s ORDER BY s.seal DESC LIMIT 1;
END;

-- Events beyond id p_settled that no seal has: the first 10,000 of them, a row for each month, still without a place in
-- the chain.
CREATE OR REPLACE FUNCTION events_to_seal(p_settled bigint)
RETURNS TABLE (month date, ids int8multirange, events bigint, rows_sha256 bytea, prints bytea) LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH sealed AS (SELECT range_agg(s.ids) AS ids FROM public.event_seals s WHERE upper(s.ids) > p_settled),
    loose AS (
        SELECT e.id, public.event_month(e.at) AS month, sha256(convert_to(public.event_line(e), 'UTF8')) AS digest
        FROM public.events e
        WHERE e.id > p_settled AND NOT coalesce((SELECT ids FROM sealed) @> e.id, false)
        ORDER BY e.id LIMIT 10000
    )
    SELECT month, range_agg(int8range(id, id, '[]') ORDER BY id), count(*), sha256(string_agg(digest, '' ORDER BY id)),
           string_agg(substr(digest, 1, 8), '' ORDER BY id)
    FROM loose GROUP BY month ORDER BY month;
END;

-- Seals what is not sealed yet. An event that is committed late is in a later seal than its neighbours. Returns how many
-- events it sealed.
CREATE OR REPLACE FUNCTION sweep_seal() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    so_far  event_sealing;
    over    boolean;
    batch   record;
    reached bigint := 0;
    n       integer := 0;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' OR NOT sweep_begins('seal') THEN
        RETURN 0;
    END IF;
    SELECT * INTO so_far FROM event_sealing;
    IF (SELECT last_value - (NOT is_called)::integer FROM events_id_seq) <= so_far.settled THEN
        RETURN 0;
    END IF;
    over := pg_snapshot_xmin(pg_current_snapshot()) >= so_far.until;
    FOR batch IN SELECT * FROM events_to_seal(so_far.settled) LOOP
        PERFORM append_seal(batch.month, batch.ids, batch.events, batch.rows_sha256, batch.prints);
        n := n + batch.events;
        reached := greatest(reached, upper(batch.ids) - 1);
    END LOOP;
    PERFORM settle_events(so_far, over, CASE WHEN n >= 10000 THEN reached END);
    RETURN n;
END $$;

-- Puts a seal over these events at the end of the chain. One sweep at a time does.
CREATE OR REPLACE FUNCTION append_seal(
    p_month date, p_ids int8multirange, p_events bigint, p_rows_sha256 bytea, p_prints bytea) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    before event_seals;
    this   event_seals;
BEGIN
    SELECT * INTO before FROM event_seals ORDER BY seal DESC LIMIT 1;
    this := ROW(coalesce(before.seal, 0) + 1, p_month, p_ids, p_events, p_rows_sha256, p_prints,
                coalesce(before.sha256, ''), NULL, clock());
    this.sha256 := seal_sha256(this);
    INSERT INTO event_seals SELECT this.*;
END $$;

-- Refuses a seal that does not follow the newest one: the history would look as if somebody had changed it.
CREATE OR REPLACE FUNCTION guard_new_seal() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    before event_seals;
BEGIN
    SELECT * INTO before FROM event_seals ORDER BY seal DESC LIMIT 1;
    IF (NEW.seal, NEW.previous, NEW.sha256)
       IS DISTINCT FROM (coalesce(before.seal, 0) + 1, coalesce(before.sha256, ''), seal_sha256(NEW)) THEN
        RAISE EXCEPTION 'that does not seal what comes after seal %', coalesce(before.seal, 0) USING ERRCODE = 'LL003',
            HINT = 'A running allocator seals within seconds; without one: SELECT sweep_seal()';
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER seals_chain_trigger BEFORE INSERT ON event_seals
    FOR EACH ROW EXECUTE FUNCTION guard_new_seal();

-- Moves the mark below which no event can appear any more, so that a round reads new events only. Ids are drawn long
-- before their events can be seen, so it takes three rounds: one notes which ids were drawn (`seen`), a later one which
-- transactions there had been by then (`until`; a transaction draws an id and gets its own number in one statement), a
-- later one finds them all over. Before the first is drawn, last_value is the id that it will be. p_over is what was found
-- before this round's seals were made; p_reached the last id of a round that left some.
CREATE OR REPLACE FUNCTION settle_events(p_so_far event_sealing, p_over boolean, p_reached bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    next_transaction xid8 := pg_snapshot_xmax(pg_current_snapshot());
BEGIN
    IF p_so_far.until IS NULL OR p_so_far.until > next_transaction THEN  -- it came here from another server
        UPDATE event_sealing SET until = next_transaction;
    ELSIF p_over AND p_reached < p_so_far.seen THEN
        UPDATE event_sealing SET settled = p_reached;
    ELSIF p_over THEN
        UPDATE event_sealing SET settled = seen, until = NULL,
            seen = (SELECT last_value - (NOT is_called)::integer FROM events_id_seq);
    END IF;
END $$;

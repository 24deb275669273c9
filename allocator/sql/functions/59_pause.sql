-- An admin's pause of a pool: nobody is served, and nobody's time to wait passes.

-- Whoever changes leases of a pool locks them before the pool: so does an admin who pauses it, or lets it go on.
CREATE OR REPLACE FUNCTION lock_those_who_wait() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM FROM leases WHERE status = 'queued' AND pool IN (SELECT name FROM pools WHERE paused)
    ORDER BY lower(email) COLLATE "C", id FOR NO KEY UPDATE;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER pool_pause_lock_trigger BEFORE UPDATE OF paused ON pools FOR EACH STATEMENT EXECUTE FUNCTION lock_those_who_wait();

-- Notes since when a pool is paused.
CREATE OR REPLACE FUNCTION stamp_pause() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    NEW.paused_at := CASE WHEN NEW.paused THEN clock() END;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER pool_pause_insert_trigger BEFORE INSERT ON pools FOR EACH ROW EXECUTE FUNCTION stamp_pause();
CREATE OR REPLACE TRIGGER pool_pause_trigger BEFORE UPDATE ON pools
    FOR EACH ROW WHEN (NEW.paused <> OLD.paused) EXECUTE FUNCTION stamp_pause();
CREATE OR REPLACE TRIGGER pool_odd_pause_trigger BEFORE UPDATE ON pools
    FOR EACH ROW WHEN (NEW.paused = OLD.paused AND NEW.paused_at IS DISTINCT FROM OLD.paused_at) EXECUTE FUNCTION refuse_row(
    'pools_paused_at', 'paused_at is when the pool was paused: who waits has as much more time to wait',
    'Pause it with SET paused = true, let it go on with SET paused = false');

-- A pool was paused: nobody is told any more when they will have a machine. It goes on: who waited has as much time left to wait as
-- before, and those are served for whom machines are free.
CREATE OR REPLACE FUNCTION follow_pause() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM record_event(CASE WHEN NEW.paused THEN 'pool.paused' ELSE 'pool.resumed' END, NULL, NULL, NULL, jsonb_build_object('pool', NEW.name));
    IF NEW.paused THEN
        DELETE FROM forecasts WHERE pool = (  -- or the sweep that is at it does so, which waits for those who ask
            SELECT pool FROM forecasts WHERE pool = NEW.name FOR UPDATE SKIP LOCKED);
    ELSE
        UPDATE leases SET deadline = deadline + (clock() - OLD.paused_at) WHERE id IN (
            SELECT id FROM leases WHERE pool = NEW.name AND status = 'queued' FOR NO KEY UPDATE SKIP LOCKED);  -- whom others lock came just now
        PERFORM serve_queue(NEW.name);
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER pool_pause_follow_trigger AFTER UPDATE ON pools
    FOR EACH ROW WHEN (NEW.paused <> OLD.paused) EXECUTE FUNCTION follow_pause();

-- Pauses a pool, or lets it go on, also where machines that did not come had stopped its growth; the history has who the service
-- says it was. Returns whether it is paused.
CREATE OR REPLACE FUNCTION pause_pool(p_pool text, p_paused boolean, p_who text DEFAULT NULL) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM pool_named(p_pool);
    PERFORM set_config('lablink.actor', p_who, true) WHERE p_who IS NOT NULL;
    UPDATE pools SET paused = p_paused WHERE name = p_pool AND paused <> p_paused;
    IF NOT p_paused THEN
        UPDATE pool_scaling SET failed_boots = 0 WHERE pool = p_pool;
    END IF;
    RETURN p_paused;
END $$;

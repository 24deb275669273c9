-- Admins who come over the HTTP API, each with a token of which only the SHA-256 is here. In psql the owner is the admin.

-- Lets somebody in for so many days. Returns until when.
CREATE OR REPLACE FUNCTION add_admin(p_name text, p_token_sha256 bytea, p_days integer) RETURNS timestamptz LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    until timestamptz := clock() + make_interval(days => p_days);
BEGIN
    IF EXISTS (SELECT FROM admins WHERE name = p_name) THEN
        RAISE EXCEPTION 'there is an admin % already', p_name USING ERRCODE = 'LL003',
            HINT = 'A new token takes the place of the old one when that is removed: lablink admins remove ' || p_name;
    END IF;
    INSERT INTO admins (name, token_sha256, expires_at) VALUES (p_name, p_token_sha256, until);
    RETURN until;
END $$;

-- Their token is worth nothing from now on.
CREATE OR REPLACE FUNCTION remove_admin(p_name text) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    DELETE FROM admins WHERE name = p_name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no admin %', p_name USING ERRCODE = 'LL002', HINT = 'List them: lablink admins list';
    END IF;
END $$;

-- Whose token this is; null for one that is unknown, expired or removed.
CREATE OR REPLACE FUNCTION admin_of(p_token_sha256 bytea) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    found_as text := (SELECT name FROM admins WHERE token_sha256 = p_token_sha256 AND expires_at > clock());
BEGIN
    UPDATE admins SET last_used_at = clock()
    WHERE name = found_as AND coalesce(last_used_at < clock() - interval '1 minute', true);
    RETURN found_as;
END $$;

-- Has an operation on the fleet end, as Ctrl-C at its terminal would: whoever is at it sees the wish. Says whether there is
-- something to end. One whose process was killed is closed at once: who runs has alembic_version locked, and who waits what
-- STEP_ASIDE of allocator/operations.py locks.
CREATE OR REPLACE FUNCTION cancel_operation(p_operation bigint, p_by text) RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    nobody_runs boolean;
BEGIN
    UPDATE operations SET cancelled_by = coalesce(cancelled_by, p_by)
    WHERE id = p_operation AND kind LIKE 'fleet %' AND status IN ('waiting', 'running');
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM FROM alembic_version FOR UPDATE SKIP LOCKED;
    nobody_runs := FOUND;
    UPDATE operations SET status = 'failed', finished_at = clock(), error = 'interrupted', step = NULL
    WHERE id = p_operation AND CASE status WHEN 'running' THEN nobody_runs
                                           ELSE pg_try_advisory_xact_lock(54162, (id % 2147483648)::integer) END;
    RETURN true;
END $$;

-- The history says who became an admin and who is none any more.
CREATE OR REPLACE FUNCTION record_admin() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        PERFORM record_event('admin.removed', NULL, NULL, NULL, jsonb_build_object('admin', OLD.name));
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM record_event('admin.added', NULL, NULL, NULL,
                             jsonb_build_object('admin', NEW.name, 'until', NEW.expires_at));
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER admin_record_trigger AFTER INSERT OR DELETE OR UPDATE OF name, token_sha256, expires_at ON admins
    FOR EACH ROW EXECUTE FUNCTION record_admin();
CREATE OR REPLACE TRIGGER admin_truncate_trigger BEFORE TRUNCATE ON admins
    FOR EACH STATEMENT EXECUTE FUNCTION delete_before_truncate();

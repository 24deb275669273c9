-- Terms: how long a lease lasts, and how much longer its holder may make it.

-- Until when the holder of an active lease may have it now, if that is longer than they have it: a step further, and no further
-- than its pool allows, which is less while somebody waits.
CREATE OR REPLACE FUNCTION extensible_until(lease leases) RETURNS timestamptz LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    this   pools;
    utmost timestamptz;
BEGIN
    IF lease.status IS DISTINCT FROM 'active' OR lease.expires_at IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT * INTO this FROM pools WHERE name = lease.pool;
    utmost := lease.assigned_at + make_interval(secs => CASE WHEN is_waited_for(lease) THEN this.lease_seconds ELSE this.longest_seconds END);
    utmost := least(lease.expires_at + make_interval(secs => this.extend_seconds), utmost, hours_end(lease.pool));
    RETURN CASE WHEN utmost > lease.expires_at THEN utmost END;
END $$;

-- Whether somebody waits for a machine of this pool.
CREATE OR REPLACE FUNCTION somebody_waits(p_pool text) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM leases q WHERE q.pool = p_pool AND q.status = 'queued' AND NOT q.passed_over)
$$;

-- Whether somebody waits who would have its machine: not who is held back by what another group than the lease's has.
CREATE OR REPLACE FUNCTION is_waited_for(lease leases) RETURNS boolean LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    RETURN somebody_waits(lease.pool) AND (
        EXISTS (SELECT FROM groups g WHERE group_waits(lease.pool, g.name)
                AND (g.name = lease.group_name OR (room_of(lease.pool, g.name) > 0) IS NOT FALSE))
        OR EXISTS (SELECT FROM leases q WHERE q.pool = lease.pool AND q.status = 'queued' AND NOT q.passed_over AND q.group_name IS NULL));
END $$;

-- Why a lease is not made longer, in words for its holder.
CREATE OR REPLACE FUNCTION why_not_longer(lease leases) RETURNS text LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    RETURN CASE WHEN lease.status IS DISTINCT FROM 'active' THEN 'it is not active'
        WHEN (SELECT p.extend_seconds FROM pools p WHERE p.name = lease.pool) = 0 THEN 'leases of this pool are not made longer'
        WHEN lease.expires_at >= hours_end(lease.pool) THEN 'the hours of its pool end then'
        WHEN is_waited_for(lease) THEN 'somebody waits for a machine'
        ELSE 'it is as long as it may get' END;
END $$;

-- Makes a lease a step longer because its holder says so, and returns its new end; refused in words where it may not be longer.
CREATE OR REPLACE FUNCTION extend_lease(p_lease uuid) RETURNS timestamptz LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    lease leases := lock_lease(p_lease);
    until timestamptz := extensible_until(lease);
BEGIN
    IF until IS NULL THEN
        RAISE EXCEPTION '%', why_not_longer(lease) USING ERRCODE = 'LL012', HINT = 'Save what you need before it ends; then ask again.';
    END IF;
    PERFORM FROM pools WHERE name = lease.pool AND is_budgeted FOR NO KEY UPDATE;
    PERFORM refuse_beyond_budget(lease, until);
    UPDATE leases SET expires_at = until WHERE id = p_lease;
    RETURN until;
END $$;

-- The end of a lease was moved: the history says by whom, and until when.
CREATE OR REPLACE FUNCTION record_new_end() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM record_event(CASE WHEN NEW.expires_at > OLD.expires_at THEN 'lease.extended' ELSE 'lease.shortened' END, NEW.vm_id, NEW.hostname,
                         NEW.id, jsonb_build_object('until', NEW.expires_at));
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER lease_extend_trigger AFTER UPDATE OF expires_at ON leases
    FOR EACH ROW WHEN (NEW.status = 'active' AND OLD.status = 'active' AND NEW.expires_at <> OLD.expires_at) EXECUTE FUNCTION record_new_end();

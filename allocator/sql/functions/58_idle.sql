-- Idle: who leaves a machine unused for long is warned, then the lease ends. Off unless a pool has idle_seconds.

-- Since when nobody has used the machine of this lease. Null where nobody can say, or it does not matter: the client cannot tell
-- or is silent, the pool lets it, somebody holds the machine by hand. What runs in a pool without desktops is waited for by nobody
-- in front of it, so it may sleep there for as long as it lasts.
CREATE OR REPLACE FUNCTION unused_since(lease leases, pool pools) RETURNS timestamptz LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
SELECT greatest(h.used_at, lease.active_at, lease.here_at) FROM vm_heartbeats h
WHERE h.vm_id = lease.vm_id AND h.used_at IS NOT NULL AND h.seen_at > clock() - fresh_for()
    AND pool.idle_seconds > 0 AND lease.status = 'active' AND lease.kind IN ('desktop', 'job') AND NOT lease.needs_line
    AND NOT (lease.kind = 'job' AND lease.exit_code IS NULL AND NOT pool.accepts_desktop)
$$;

-- Whether its holder is to be warned, or was with reason.
CREATE OR REPLACE FUNCTION is_left_idle(lease leases, pool pools) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
SELECT coalesce(unused_since(lease, pool) < clock() - make_interval(secs => pool.idle_seconds - pool.idle_warn_seconds), false)
$$;

-- Whether its holder was warned so lately that they are not again: a machine that says now this, now that would fill the history.
CREATE OR REPLACE FUNCTION was_just_warned(lease leases, pool pools) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
SELECT EXISTS (SELECT FROM events e WHERE e.lease_id = lease.id AND e.kind = 'lease.idle'
               AND e.at > clock() - make_interval(secs => pool.idle_warn_seconds))
$$;

-- Warnings that were in vain are taken back, leases whose time is up end, and holders of others are warned: always for as long as
-- their pool says, whatever kept this from looking.
CREATE OR REPLACE FUNCTION sweep_idle() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    warned uuid[];
    idle   uuid[];
BEGIN
    IF NOT sweep_begins('idle') THEN
        RETURN 0;
    END IF;
    warned := lock_leases(ARRAY(
        SELECT l.id FROM leases l JOIN pools p ON p.name = l.pool WHERE l.status = 'active' AND l.idle_until IS NOT NULL
        AND (l.idle_until < clock() OR NOT is_left_idle(l, p)) ORDER BY l.idle_until LIMIT 1000));
    IF cardinality(warned) > 0 THEN
        UPDATE leases l SET idle_until = NULL FROM pools p WHERE l.id = ANY (warned) AND p.name = l.pool AND NOT is_left_idle(l, p);
        UPDATE leases SET status = 'ended', left_idle = true WHERE id = ANY (warned) AND status = 'active' AND idle_until < clock();
    END IF;
    IF EXISTS (SELECT FROM pools WHERE idle_seconds > 0) THEN
        idle := lock_leases(ARRAY(
            SELECT l.id FROM pools p JOIN leases l ON l.pool = p.name AND l.live AND l.status = 'active' AND l.idle_until IS NULL
            WHERE p.idle_seconds > 0 AND is_left_idle(l, p) AND NOT was_just_warned(l, p) LIMIT 1000));
        UPDATE leases l SET idle_until = greatest(clock() + make_interval(secs => p.idle_warn_seconds),
                                                  unused_since(l, p) + make_interval(secs => p.idle_seconds))
        FROM pools p WHERE l.id = ANY (idle) AND p.name = l.pool AND is_left_idle(l, p);
    END IF;
    RETURN coalesce(cardinality(warned), 0) + coalesce(cardinality(idle), 0);
END $$;

-- Its holder says that they are there: that counts as use of the machine. Of a lease that is not active it changes nothing.
CREATE OR REPLACE FUNCTION still_here(p_lease uuid) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM FROM vms WHERE lease_id = p_lease FOR UPDATE;
    UPDATE leases SET here_at = clock(), idle_until = NULL WHERE id = p_lease AND status = 'active'
        AND (idle_until IS NOT NULL OR (here_at > clock() - interval '10 seconds') IS NOT TRUE);
END $$;

-- The holder was warned, or that was taken back: the history says so.
CREATE OR REPLACE FUNCTION record_idleness() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM record_event(CASE WHEN NEW.idle_until IS NULL THEN 'lease.used' ELSE 'lease.idle' END, NEW.vm_id, NEW.hostname, NEW.id,
                         jsonb_build_object('until', NEW.idle_until));
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER lease_idle_trigger AFTER UPDATE OF idle_until ON leases
    FOR EACH ROW WHEN (NEW.status = 'active' AND OLD.status = 'active' AND (NEW.idle_until IS NULL) <> (OLD.idle_until IS NULL))
    EXECUTE FUNCTION record_idleness();

-- When the machine of a lease was last used, and what follows from that; null where its pool does not ask.
CREATE OR REPLACE FUNCTION idle_in_words(lease leases) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
SELECT CASE WHEN lease.idle_until IS NOT NULL THEN format('nobody has for %s; it ends in %s unless somebody does',
                since(unused_since(lease, p)), until(lease.idle_until))
            WHEN unused_since(lease, p) IS NULL THEN 'nobody can say, so it counts as used'
            ELSE format('last %s ago; %s without that end it', since(unused_since(lease, p)),
                        span(p.idle_seconds)) END
FROM pools p WHERE p.name = lease.pool AND p.idle_seconds > 0
$$;

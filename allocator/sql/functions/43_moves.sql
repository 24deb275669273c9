-- Moves: a lease outlives its machine, and a command that went wrong. What it lacks then its holder is asked for.

-- Whether the lease may go on with another machine after it has lost its own: as often as it takes to meet a good one. A desktop's
-- holder is asked for a fresh line there. A job starts again if it did not begin, or its pool lets it.
CREATE OR REPLACE FUNCTION may_move(lease leases, pool pools) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
SELECT lease.moves < 5 AND (lease.expires_at > clock()) IS NOT FALSE AND CASE lease.kind
    WHEN 'desktop' THEN true
    WHEN 'job' THEN lease.command IS NOT NULL AND (lease.status = 'assigned' OR pool.restart_on_move)
    ELSE false END
$$;

-- The lease as it waits for another machine: with the place that it had, which is before all who came later, and with what is left
-- of its time. A code that may have been used is no good any more.
CREATE OR REPLACE FUNCTION without_machine(lease leases, p_was text) RETURNS leases LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF lease.kind NOT IN ('desktop', 'job') THEN
        RAISE EXCEPTION 'lease % is of this machine: % was lent by hand', lease.id, lease.hostname USING ERRCODE = 'LL003',
            HINT = 'End it, then lend another one: UPDATE vms SET status = ''in-use'', email = …, crd_command = … WHERE hostname = …';
    END IF;
    lease.needs_line := lease.needs_line OR lease.kind = 'desktop' AND p_was <> 'assigned';
    IF lease.claimed_at IS NOT NULL OR NOT lease.passed_over THEN  -- a machine that only waited for somebody costs no time
        lease.left_seconds := CASE WHEN lease.expires_at IS NOT NULL THEN
            least(2147483647, ceil(extract(epoch FROM greatest(lease.expires_at - clock(), interval '1 second')))) END;
    END IF;
    lease.moves := lease.moves + CASE WHEN lease.passed_over THEN 0 ELSE 1 END;
    lease.lent_seconds := lease.lent_seconds + ceil(extract(epoch FROM clock() - coalesce(lease.turn_at, lease.assigned_at)));
    lease.turn_at := clock();
    lease.vm_id := NULL;
    lease.hostname := NULL;
    lease.epoch := NULL;
    lease.expires_at := NULL;
    lease.claimed_at := NULL;
    lease.started_at := NULL;
    lease.active_at := NULL;
    lease.exit_code := NULL;
    lease.output := NULL;
    lease.idle_until := NULL;
    RETURN lease;
END $$;

-- Whether a lease goes on with what its holder was asked for, or its job begins again: on the same machine that is the next epoch.
CREATE OR REPLACE FUNCTION begins_anew(was leases, lease leases) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
SELECT (lease.vm_id, lease.hostname, lease.epoch) IS NOT DISTINCT FROM (was.vm_id, was.hostname, was.epoch + 1) AND CASE
    WHEN was.needs_line THEN NOT lease.needs_line AND lease.status = was.status
    ELSE (lease.kind, lease.status, lease.command, lease.moves) = ('job', 'assigned', was.command, was.moves + 1) END
$$;

-- A job whose outcome nobody knows begins again on the machine that it has, which counts as a move: its machine rebooted, or its
-- client died. What ran there is gone, and the client empties the session before it starts anything.
CREATE OR REPLACE FUNCTION start_again(p_lease uuid) RETURNS void LANGUAGE sql
SET search_path = pg_catalog, public, pg_temp AS $$
    WITH begun AS (
        UPDATE leases SET status = 'assigned', epoch = epoch + 1, moves = moves + 1, trouble = 'unknown',
               started_at = NULL, active_at = NULL, exit_code = NULL, output = NULL
        WHERE id = p_lease RETURNING id, epoch
    )
    UPDATE vms v SET epoch = b.epoch FROM begun b WHERE v.lease_id = b.id
$$;

-- After leases lost their machines: those are cleaned that are still there, and free ones are the leases' at once, unless so many
-- fail that the pool rests.
CREATE OR REPLACE FUNCTION move_leases(p_leases uuid[]) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    pools text[];
BEGIN
    PERFORM take_back(p_leases, p_leases);
    pools := ARRAY(SELECT DISTINCT pool FROM leases WHERE id = ANY (p_leases) ORDER BY pool);
    PERFORM lock_budgets(pools, '{}');
    PERFORM rest_if_failing(name) FROM unnest(pools) AS p (name);
    PERFORM serve_queues(pools);
END $$;

-- The holder's fresh line: p_command without its secrets, p_secrets, and what of it may be shown. Returns the lease's status: whoever
-- was passed over may have a machine at once. Refuses a lease that waits for none; while it is queued a desktop may always have one.
CREATE OR REPLACE FUNCTION renew_line(p_lease uuid, p_command jsonb, p_secrets jsonb, p_summary text) RETURNS text LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    lease leases := lock_lease(p_lease);
BEGIN
    IF NOT coalesce(lease.live AND (lease.needs_line OR lease.status = 'queued' AND lease.kind = 'desktop'), false) THEN
        RAISE EXCEPTION 'lease % waits for no line', p_lease USING ERRCODE = 'LL008', HINT = 'Read what its page says now.';
    END IF;
    UPDATE leases SET needs_line = true WHERE id = p_lease AND NOT needs_line;  -- the line that it waits with is no good any more
    INSERT INTO lease_secrets (lease_id, secrets) VALUES (p_lease, p_secrets);
    WITH renewed AS (
        UPDATE leases SET command = p_command, crd_command = p_summary, needs_line = false, passed_over = false, epoch = epoch + 1,
               started_at = NULL, exit_code = NULL, output = NULL, trouble = NULL
        WHERE id = p_lease RETURNING id, crd_command, epoch
    )
    UPDATE vms v SET epoch = r.epoch, crd_command = r.crd_command FROM renewed r WHERE v.lease_id = r.id;
    IF lease.passed_over THEN
        DELETE FROM foretold WHERE lease_id = p_lease;  -- that wait was over when a machine was kept; this one is told anew
        PERFORM serve_queue(lease.pool);
    END IF;
    RETURN (SELECT status FROM leases WHERE id = p_lease);
END $$;

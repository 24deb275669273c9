-- Why: of each condition whether it holds, and what happens next and when. `holds` is null where something is only told. What is told
-- of limits, forecasts, failing machines, sizes and use stands beside them: 49, 52, 55, 69, 58.

-- What keeps this machine from being lent; null when nothing does: then it is free.
CREATE OR REPLACE FUNCTION in_its_way(vm vms, p_seen_at timestamptz) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp
RETURN CASE WHEN public.is_free(vm, p_seen_at, public.clock() - public.fresh_for()) THEN NULL WHEN (vm).status = 'in-use' THEN 'lent'
    WHEN (vm).status <> 'available' THEN (vm).status WHEN (vm).draining THEN 'draining' WHEN p_seen_at IS NULL THEN 'never heard'
    ELSE 'silent' END;

-- The machines of a pool by what is in their way: 2 free, 3 lent, 1 booting.
CREATE OR REPLACE FUNCTION machines_in_words(p_pool text) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT coalesce(string_agg(format('%s %s', n, way), ', ' ORDER BY n DESC, way), 'none') FROM (
        SELECT way, count(*) AS n FROM (
            SELECT coalesce(public.in_its_way(v, h.seen_at), 'free') FROM public.vms v LEFT JOIN public.vm_heartbeats h ON h.vm_id = v.id
            WHERE v.pool = p_pool AND v.status <> 'retired'
            UNION ALL SELECT 'booting' FROM public.booting_in(p_pool) b
            WHERE NOT EXISTS (SELECT FROM public.vms v WHERE v.hostname = b.hostname AND v.status <> 'retired')) AS machines (way)
        GROUP BY way) AS ways;
END;

-- Whether a machine of the pool is free, whoever may have it.
CREATE OR REPLACE FUNCTION has_free(p_pool text) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM vms v JOIN vm_heartbeats h ON h.vm_id = v.id
                   WHERE v.pool = p_pool AND is_free(v, h.seen_at, (SELECT clock() - fresh_for())))
$$;

-- What keeps everybody who waits in a pool from having a machine, free or not; null when nothing does.
CREATE OR REPLACE FUNCTION in_everybodys_way(p_pool text) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT CASE WHEN p.paused THEN 'no machine is lent before the pool goes on'
        WHEN p.rests_until > clock() AND somebody_waits(p.name) THEN 'for ' || until(p.rests_until) || ' no machine is lent to those who wait'
        WHEN is_spent(p.name) THEN 'no machine is lent before the budget allows it' END
    FROM pools p WHERE p.name = p_pool
$$;

-- When so many machines of the pool will have come free, as the forecast has it: with even odds, and in nine of ten cases.
CREATE OR REPLACE FUNCTION comes_in_words(p_pool text, p_likely bigint, p_sure bigint) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT coalesce((
        SELECT format('in about %s', span(seconds_left(f.at, f.likely, p_likely)))
            || coalesce(format('; in nine of ten cases within %s', span(seconds_left(f.at, f.sure, p_sure))), '')
        FROM forecasts f WHERE f.pool = p_pool AND f.at > clock() - interval '1 minute' AND seconds_left(f.at, f.likely, p_likely) IS NOT NULL),
        'at a time that nobody can tell')
$$;

-- The same where both are so many.
CREATE OR REPLACE FUNCTION comes_in_words(p_pool text, p_position bigint) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp RETURN comes_in_words(p_pool, p_position, p_position);

-- What happens next to a machine.
CREATE OR REPLACE FUNCTION next_of(vm vms, p_seen_at timestamptz) RETURNS text LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    RETURN CASE vm.status
        WHEN 'available' THEN CASE WHEN in_its_way(vm, p_seen_at) IS NOT NULL THEN 'nothing, before that changes'
            ELSE coalesce(in_everybodys_way(vm.pool), 'whoever asks next in pool ' || vm.pool || ' gets it') END
        WHEN 'booting' THEN 'it says hello'
        WHEN 'cleaning' THEN 'its client wipes it, then it is available'
        WHEN 'in-use' THEN coalesce((
            SELECT 'its lease ends in ' || until(l.expires_at) || ' at the latest; then it is cleaned' FROM leases l
            WHERE l.id = vm.lease_id AND l.expires_at IS NOT NULL), 'whoever lent it by hand gives it back')
        WHEN 'failed' THEN CASE WHEN vm.reason = 'lost' THEN 'it is cleaned when it is heard again'
            WHEN may_return(vm) THEN 'it is cleaned once its own checks have passed for some minutes'
            ELSE 'an admin returns it: lablink vms return ' || vm.hostname END
        ELSE 'an admin invites it again: lablink vms invite ' || vm.hostname END;
END $$;

-- Why a machine is lent to nobody, or to whom it is. Nothing of one that is not there.
CREATE OR REPLACE FUNCTION why_vm(p_hostname text) RETURNS TABLE (what text, holds boolean, detail text) LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    vm   vms;
    seen timestamptz;
BEGIN
    SELECT * INTO vm FROM vms WHERE hostname = p_hostname;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT seen_at INTO seen FROM vm_heartbeats WHERE vm_id = vm.id;
    RETURN QUERY VALUES
        ('it is available', vm.status = 'available', vm.status || coalesce(': ' || vm.reason, '') || ', since ' || since(vm.updated_at)),
        ('it is not being emptied', NOT vm.draining,
         CASE WHEN vm.draining THEN 'draining: return it with lablink vms return ' || vm.hostname END),
        ('it was heard lately', coalesce(seen > clock() - fresh_for(), false),
         coalesce(since(seen) || ' ago', 'never') || ', every ' || span(hello_period()) || ' is usual'),
        ('its pool is not paused', NOT (SELECT p.paused FROM pools p WHERE p.name = vm.pool), NULL);
    RETURN QUERY SELECT 'its own checks pass', false, reason || '; so many fail at once that it stays with whoever has it'
    FROM unwell(vm) AS reason WHERE reason IS NOT NULL;
    RETURN QUERY VALUES
        ('nobody waits for it', NOT somebody_waits(vm.pool), NULL),
        ('next', NULL, next_of(vm, seen));
END $$;

-- What happens next in a pool: to those who wait, or to whoever asks.
CREATE OR REPLACE FUNCTION next_in(p_pool text, p_waiting bigint) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT coalesce(in_everybodys_way(p_pool), CASE
        WHEN p_waiting > 0 THEN 'the first in line has a machine ' || comes_in_words(p_pool, 1)
            || coalesce(' (' || coming_in_words(p_pool) || ')', '')
            || CASE WHEN p_waiting > 1 THEN '; the last ' || (
                SELECT comes_in_words(p_pool, coalesce(max(t.likely), p_waiting), coalesce(max(t.sure), p_waiting)) FROM fair_turns(p_pool) t
                WHERE t.held_back IS NULL AND EXISTS (SELECT FROM leases g WHERE g.pool = p_pool AND g.status = 'queued' AND g.group_name IS NOT NULL)) ELSE '' END
        WHEN affordable(p_pool) <= 0 THEN 'whoever asks is refused until the budget allows another lease'
        WHEN has_free(p_pool) THEN 'whoever may ask has a machine at once'
        ELSE 'whoever asks is the first in line' END)
$$;

-- Whether a machine of a pool is free, whether somebody waits there, and what happens next.
CREATE OR REPLACE FUNCTION why_lending(p_pool text) RETURNS TABLE (what text, holds boolean, detail text) LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    waiting bigint := (SELECT c.waiting FROM pool_counts(p_pool) c);
BEGIN
    RETURN QUERY VALUES
        ('a machine is free', has_free(p_pool), machines_in_words(p_pool)),
        ('nobody waits', waiting = 0, CASE WHEN waiting > 0 THEN counted(waiting, 'person') || ' in line' END),
        ('next', NULL, next_in(p_pool, waiting));
END $$;

-- Why somebody waits in a pool, or nobody has to.
CREATE OR REPLACE FUNCTION why_pool(p_pool text) RETURNS TABLE (what text, holds boolean, detail text) LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM pool_named(p_pool);
    RETURN QUERY SELECT * FROM why_failing(p_pool);
    RETURN QUERY SELECT * FROM why_unwell(p_pool);
    RETURN QUERY SELECT * FROM why_size(p_pool, true);
    RETURN QUERY SELECT * FROM why_forecasts(p_pool);
    RETURN QUERY SELECT * FROM why_limits(p_pool);
    RETURN QUERY SELECT * FROM why_lending(p_pool);
END $$;

-- The same of every pool for everybody: no names, no amounts, nothing that is for admins. How forecasts held is read once for all pools.
CREATE OR REPLACE FUNCTION why_pools() RETURNS TABLE (pool text, what text, holds boolean, detail text) LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    this record;
BEGIN
    FOR this IN
        SELECT p.name, c.told, c.likely_held, c.sure_held FROM pools p LEFT JOIN forecast_calibration c ON c.pool = p.name
        ORDER BY p.name <> 'default', p.name
    LOOP
        RETURN QUERY SELECT this.name, w.* FROM why_failing(this.name) w;
        RETURN QUERY SELECT this.name, w.* FROM why_size(this.name, false) w;
        RETURN QUERY SELECT this.name, w.* FROM waits_held(this.told, this.likely_held, this.sure_held) w;
        RETURN QUERY SELECT this.name, w.* FROM open_limits(this.name) w;
        RETURN QUERY SELECT this.name, w.* FROM why_lending(this.name) w;
    END LOOP;
END $$;

-- Why a lease waits, and until when.
CREATE OR REPLACE FUNCTION why_queued(lease leases) RETURNS TABLE (what text, holds boolean, detail text) LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    place record;
BEGIN
    IF lease.passed_over THEN
        RETURN QUERY VALUES ('its line is here', false, 'a machine was kept for its holder, who did not come'),
            ('next', NULL, 'with a fresh line it has the place that it had; without one it fails in ' || until(lease.deadline));
        RETURN;
    END IF;
    SELECT q.position, q.held_back, q.likely, q.sure INTO place FROM queue_turns q WHERE q.pool = lease.pool AND q.id = lease.id;
    RETURN QUERY SELECT * FROM why_failing(lease.pool);
    RETURN QUERY SELECT * FROM why_size(lease.pool, false);
    RETURN QUERY VALUES
        ('a machine of its pool is free', has_free(lease.pool), machines_in_words(lease.pool)),
        ('nobody is before it', place.position = 1, CASE WHEN place.position > 1 THEN counted(place.position - 1, 'person') || ' before it' END);
    RETURN QUERY SELECT w.* FROM why_held_back(lease, place.held_back) AS w;
    RETURN QUERY SELECT 'next', NULL::boolean, coalesce(in_everybodys_way(lease.pool), 'it has a machine ' || CASE
            WHEN lease.id <> ALL (affordable_queue(lease.pool, lease.id)) THEN 'when the budget allows it'
            WHEN place.held_back IS NOT NULL THEN 'when one of its group''s is given back'
            ELSE comes_in_words(lease.pool, place.likely, place.sure) || coalesce(' (' || coming_in_words(lease.pool) || ')', '') END)
        || CASE WHEN p.paused THEN '' ELSE '; without one it fails in ' || until(lease.deadline) END FROM pools p WHERE p.name = lease.pool;
END $$;

-- What happens next to a lease that has a machine.
CREATE OR REPLACE FUNCTION next_of(lease leases) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT CASE
        WHEN lease.status = 'assigned' AND lease.needs_line
            THEN 'without a line its machine goes to whoever is next, in ' || until(lease.deadline) || '; its place is kept'
        WHEN lease.status = 'assigned' THEN 'its machine fetches the command, or in ' || until(lease.deadline) || ' it moves to another'
        WHEN lease.status = 'claimed' THEN 'the command begins, or in ' || until(lease.deadline) || ' the lease is for another machine'
        ELSE coalesce('it ends in ' || until(lease.expires_at), 'it lasts until somebody ends it')
            || CASE WHEN lease.idle_until IS NULL THEN '' ELSE '; unless somebody uses it, in ' || until(lease.idle_until) END
            || coalesce((SELECT '; its holder may have it ' || span(extract(epoch FROM longer - lease.expires_at)::double precision) || ' longer'
                         FROM extensible_until(lease) AS longer WHERE longer IS NOT NULL), '') END
$$;

-- What comes of it that the machine of a lease is not heard; null while it is.
CREATE OR REPLACE FUNCTION silence_in_words(lease leases) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT coalesce('not for ' || since(h.seen_at), 'never') || '; in ' || until(coalesce(h.seen_at, v.updated_at) + lost_after())
        || ' at the earliest it counts as lost, and the lease ' || CASE WHEN may_move(lease, p) THEN 'moves to another' ELSE 'is over' END
    FROM vms v JOIN pools p ON p.name = lease.pool LEFT JOIN vm_heartbeats h ON h.vm_id = v.id
    WHERE v.id = lease.vm_id AND (h.seen_at > clock() - fresh_for()) IS NOT TRUE
$$;

-- How far a lease that has a machine has come.
CREATE OR REPLACE FUNCTION why_lent(lease leases) RETURNS TABLE (what text, holds boolean, detail text) LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    RETURN QUERY VALUES
        ('it has a machine', true, lease.hostname::text),
        ('its machine was heard lately', silence_in_words(lease) IS NULL, silence_in_words(lease));
    RETURN QUERY SELECT 'its machine passes its own checks', false, 'many fail theirs at once, so it stays yours: hand it back if it does not work'
    FROM vms v WHERE v.id = lease.vm_id AND unwell(v) IS NOT NULL;
    RETURN QUERY VALUES
        ('its line is here', NOT lease.needs_line,
         CASE WHEN lease.needs_line THEN 'its holder is asked for a fresh one: ' || coalesce(lease.trouble, 'none came') END),
        ('its machine has fetched it', lease.status <> 'assigned', NULL),
        ('it works', lease.status = 'active', CASE WHEN lease.started_at IS NULL THEN 'the command has not begun' ELSE 'the command has begun' END);
    RETURN QUERY SELECT 'somebody uses it', lease.idle_until IS NULL, words FROM idle_in_words(lease) AS words
    WHERE lease.status = 'active' AND words IS NOT NULL;
    RETURN QUERY VALUES ('next', NULL::boolean, next_of(lease));
END $$;

-- Why a lease is where it is.
CREATE OR REPLACE FUNCTION why_lease(p_lease uuid) RETURNS TABLE (what text, holds boolean, detail text) LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    lease leases;
BEGIN
    SELECT * INTO lease FROM leases WHERE id = p_lease;
    IF lease.status = 'queued' THEN
        RETURN QUERY SELECT * FROM why_queued(lease);
    ELSIF lease.live THEN
        RETURN QUERY SELECT * FROM why_lent(lease);
    ELSE
        RETURN QUERY VALUES
            ('it is not over', false, lease.status || coalesce(': ' || lease.failure, CASE WHEN lease.left_idle THEN ': nobody used it' END, '')
                || ', since ' || since(lease.ended_at)),
            ('next', NULL, 'nothing: a lease that is over never changes');
    END IF;
END $$;

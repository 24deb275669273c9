-- What people and programs read.

-- A lease as its holder sees it: with its place in the queue, an honest guess at the wait, and who ended it. No secret in it.
-- The queue is counted once, however many leases are read, and not at all where nobody's place is asked for: `GROUP BY id` says that
-- a lease is in it once, so that PostgreSQL leaves the join out. No CTE: what is not asked for, or of whom, is not worked out then.
CREATE OR REPLACE VIEW lease_views AS
SELECT l.id, l.email, l.status, l.pool, q.position::integer, CASE WHEN q.held_back IS NULL THEN seconds_left(f.at, f.likely, q.likely) END AS eta_seconds,
       l.vm_id, l.hostname, l.epoch, l.kind, l.crd_command, l.exit_code, l.output, l.failure,
       l.created_at, l.assigned_at, l.active_at, l.ended_at, l.expires_at, l.version,
       CASE WHEN NOT l.live THEN (
           SELECT CASE WHEN e.db_role LIKE 'lablink\_vm\_%' THEN 'machine'
                       WHEN e.actor = 'web' AND l.status <> 'failed' THEN 'holder'
                       WHEN e.actor IN ('web', 'sweep') THEN 'service' ELSE 'admin' END
           FROM events e WHERE e.lease_id = l.id AND e.kind = 'lease.' || l.status LIMIT 1) END AS ended_by,
       l.needs_line, l.trouble, l.moves, CASE WHEN l.needs_line AND l.status = 'assigned' THEN l.deadline END AS kept_until,
       extensible_until(l) AS extensible_until,
       CASE WHEN l.status = 'active' THEN l.expires_at - make_interval(secs => (SELECT p.warn_seconds FROM pools p WHERE p.name = l.pool)) END AS warned_from,
       CASE WHEN q.held_back IS NULL THEN seconds_left(f.at, f.sure, q.sure) END AS eta_p90_seconds,
       l.status = 'queued' AND (SELECT p.paused FROM pools p WHERE p.name = l.pool) AS paused, q.held_back,
       CASE WHEN q.held_back IS NULL THEN f.because END AS because,
       CASE WHEN l.status = 'active' THEN l.idle_until END AS idle_until,
       CASE WHEN l.status = 'active' AND l.idle_until IS NOT NULL THEN
           l.idle_until - make_interval(secs => (SELECT p.idle_seconds FROM pools p WHERE p.name = l.pool)) END AS unused_since,
       l.passed_over, l.left_idle,
       CASE WHEN l.status IN ('assigned', 'claimed', 'active') THEN (
           SELECT h.seen_at FROM vm_heartbeats h WHERE h.vm_id = l.vm_id AND h.seen_at <= (SELECT clock() - fresh_for())) END AS silent_since
FROM leases l LEFT JOIN (
    SELECT id, min(pool) AS pool, min(position) AS position, min(held_back) AS held_back, min(likely) AS likely, min(sure) AS sure
    FROM queue_turns GROUP BY id
) AS q ON q.id = l.id AND l.status = 'queued' LEFT JOIN forecasts f ON f.pool = q.pool AND f.at > clock() - interval '1 minute';

-- Which of the leases the token beside it opens; who brings another one is not told whether it is there.
CREATE OR REPLACE FUNCTION opened_leases(p_leases uuid[], p_tokens_sha256 bytea[]) RETURNS TABLE (id uuid, token_sha256 bytea)
LANGUAGE sql STABLE SECURITY DEFINER ROWS 10 SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT l.id, l.token_sha256 FROM unnest(p_leases, p_tokens_sha256) AS shown (id, token_sha256)
    JOIN public.leases l ON l.id = shown.id AND l.token_sha256 = shown.token_sha256;
END;

-- A machine as anybody may see it: nothing personal in it.
CREATE OR REPLACE VIEW vm_views AS
SELECT v.id, v.hostname, v.status, v.pool, v.created_at, v.updated_at, h.seen_at
FROM vms v LEFT JOIN vm_heartbeats h ON h.vm_id = v.id
WHERE v.status <> 'retired' ORDER BY length(v.hostname), v.hostname;

-- The pool at a glance: machines that can be had now (none while it is paused), that are lent, that are on their way; people who wait.
CREATE OR REPLACE FUNCTION pool_counts(
    p_pool text, OUT free bigint, OUT lent bigint, OUT coming bigint, OUT waiting bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT count(*) FILTER (WHERE is_free(v, h.seen_at, (SELECT clock() - fresh_for()))
                                AND NOT (SELECT p.paused FROM pools p WHERE p.name = p_pool)),
           count(*) FILTER (WHERE v.status = 'in-use'),
           count(*) FILTER (WHERE v.status = 'cleaning' AND NOT v.draining) + (SELECT count(*) FROM booting_in(p_pool)),
           (SELECT count(*) FROM leases l WHERE pool = p_pool AND status = 'queued' AND NOT l.passed_over)
    FROM vms v LEFT JOIN vm_heartbeats h ON h.vm_id = v.id WHERE v.pool = p_pool;
$$;

-- Machines that a request would get at once.
CREATE OR REPLACE FUNCTION unassigned_vms_count() RETURNS integer
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT count(*)::integer FROM vms v JOIN vm_heartbeats h ON h.vm_id = v.id
    WHERE is_free(v, h.seen_at, (SELECT clock() - fresh_for()))
      AND v.pool NOT IN (SELECT p.name FROM pools p WHERE p.paused);
$$;

-- Every rule of docs/states.md that a row can break; no row means that all hold. `lablink verify` prints them.
CREATE OR REPLACE FUNCTION broken_invariants() RETURNS TABLE (rule text, what text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT 'I1', format('VM %s has %s live leases', vm_id, count(*)) FROM public.leases
    WHERE live AND vm_id IS NOT NULL GROUP BY vm_id HAVING count(*) > 1
    UNION ALL
    SELECT 'I1', format('one person has the live leases %s', string_agg(id::text, ', ')) FROM public.leases
    WHERE live AND position('@' IN email) > 0 GROUP BY lower(email), seat HAVING count(*) > 1
    UNION ALL
    SELECT 'I3', format('VM %s is available but was not wiped at epoch %s', hostname, epoch) FROM public.vms
    WHERE status = 'available' AND (cleaned_epoch <> epoch OR num_nonnulls(email, crd_command, lease_id) > 0)
    UNION ALL
    SELECT 'I4', format('lease %s is active but its command was not run as it must be', id) FROM public.leases
    WHERE status = 'active' AND kind <> 'hold'
      AND (started_at IS NULL OR kind = 'typed' OR kind = 'desktop' AND exit_code IS DISTINCT FROM 0)
    UNION ALL
    SELECT 'I6', format('VM %s is in-use without a live lease of its epoch', v.hostname) FROM public.vms v
    LEFT JOIN public.leases l ON l.id = v.lease_id AND l.live AND l.vm_id = v.id AND l.epoch = v.epoch
    WHERE v.status = 'in-use' AND l.id IS NULL
    UNION ALL
    SELECT 'I6', format('lease %s holds VM %s, which is not lent to it', l.id, l.vm_id) FROM public.leases l
    LEFT JOIN public.vms v ON v.lease_id = l.id AND v.id = l.vm_id AND v.epoch = l.epoch AND v.status = 'in-use'
    WHERE l.live AND l.vm_id IS NOT NULL AND v.id IS NULL
    UNION ALL
    SELECT 'I7', format('VM %s is at epoch %s but once was at %s', v.hostname, v.epoch, e.epoch) FROM public.vms v
    JOIN LATERAL (
        SELECT (e.detail ->> 'epoch')::bigint AS epoch FROM public.events e
        WHERE (e.hostname, e.vm_id) = (v.hostname, v.id) AND (e.kind = 'vm.deleted' OR e.kind LIKE 'vm.%' AND e.detail ->> 'epoch' ~ '^[0-9]{1,18}$')
        ORDER BY e.id DESC LIMIT 1
    ) e ON e.epoch > v.epoch
    UNION ALL
    SELECT 'I8', format('lease %s became %s without an event', l.id, l.status) FROM public.leases l
    WHERE NOT EXISTS (SELECT FROM public.events e WHERE e.lease_id = l.id AND e.kind = 'lease.' || l.status)
    UNION ALL
    SELECT 'I10', format('lease %s still has its secret', s.lease_id) FROM public.lease_secrets s
    LEFT JOIN public.leases l ON l.id = s.lease_id
    WHERE l.live IS DISTINCT FROM true OR l.started_at IS NOT NULL OR s.created_at < public.clock() - interval '11 minutes'
    UNION ALL
    SELECT 'I14', format('group %s has had more than %s machines since that is its limit', name, max_live) FROM (
        SELECT name, NULL AS pool, max_live, since FROM public.groups
        UNION ALL SELECT group_name, pool, max_live, since FROM public.shares) AS limits
    WHERE max_live < (SELECT count(*) FROM public.leases l WHERE l.live AND l.vm_id IS NOT NULL AND l.group_name = name
                      AND l.kind IN ('desktop', 'job') AND l.pool = coalesce(limits.pool, l.pool) AND l.assigned_at >= since)
    UNION ALL
    SELECT 'L1', format('lease %s is %s past its deadline', id, status) FROM public.leases
    WHERE live AND coalesce(deadline, expires_at) < public.clock() - interval '30 seconds'
      AND NOT (status = 'queued' AND pool IN (SELECT name FROM public.pools WHERE paused))
    UNION ALL
    SELECT 'L2', format('pool %s has a free VM and somebody who waits since %s', l.pool, min(l.created_at)) FROM public.leases l
    JOIN public.vms v ON v.pool = l.pool AND v.updated_at < public.clock() - interval '15 seconds'
    JOIN public.vm_heartbeats h ON h.vm_id = v.id AND public.is_free(v, h.seen_at, (SELECT public.clock() - public.fresh_for()))
    WHERE l.status = 'queued' AND l.created_at < public.clock() - interval '15 seconds'
      AND l.pool NOT IN (SELECT name FROM public.pools WHERE paused OR rests_until > public.clock() - interval '10 minutes')
      AND EXISTS (SELECT FROM public.queue_places i WHERE i.id = l.id AND i.held_back IS NULL) GROUP BY l.pool
    HAVING NOT public.is_spent(l.pool)
    UNION ALL
    SELECT 'L4', format('VM %s has been cleaning since %s', hostname, updated_at) FROM public.vms
    WHERE status = 'cleaning' AND updated_at < public.clock() - interval '10 minutes';
END;

-- How long machines of a pool take to boot, from the instance's start to the first hello: of the last thirty days.
CREATE OR REPLACE VIEW boot_times AS
SELECT pool, count(*)::integer AS boots,
       round(percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds)::numeric, 1) AS p50_seconds,
       round(percentile_cont(0.9) WITHIN GROUP (ORDER BY seconds)::numeric, 1) AS p90_seconds
FROM boots WHERE at > clock() - interval '30 days' GROUP BY pool;
COMMENT ON VIEW boot_times IS 'How many seconds half and nine tenths of each pool''s boots of the last thirty days took, and how many there were.';

-- Each pool as everybody may see it: its machines, how many wait and how long, and how long boots take. Nothing personal is in it.
CREATE OR REPLACE FUNCTION pool_status() RETURNS TABLE (
    name text, free bigint, lent bigint, coming bigint, waiting bigint, eta_seconds integer, eta_p90_seconds integer, booting bigint,
    boot_seconds double precision, boot_p90_seconds double precision, paused boolean, wanted integer, missing integer,
    stopped boolean, hours text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT p.name, c.free, c.lent, c.coming, c.waiting,
           CASE WHEN c.waiting > 0 THEN public.seconds_left(f.at, f.likely, c.waiting + 1) END,
           CASE WHEN c.waiting > 0 THEN public.seconds_left(f.at, f.sure, c.waiting + 1) END,
           (SELECT count(*) FROM public.booting_in(p.name)),
           b.p50_seconds::double precision, b.p90_seconds::double precision, s.paused, s.wanted, s.missing, s.stopped IS NOT NULL, s.hours
    FROM public.pools p CROSS JOIN LATERAL public.pool_counts(p.name) c CROSS JOIN LATERAL public.size_status(p.name) s
    LEFT JOIN public.forecasts f ON f.pool = p.name AND f.at > public.clock() - interval '1 minute'
    LEFT JOIN public.boot_times b ON b.pool = p.name ORDER BY p.name <> 'default', p.name;
END;

-- What people and programs read.

-- A lease as its holder sees it: with its place in the queue, an honest guess at the wait, and who ended it. No secret in it.
-- Who is n-th in the queue waits for the n-th machine whose time is up; both are counted once, however many leases are read.
CREATE OR REPLACE VIEW lease_views AS
WITH queue AS MATERIALIZED (
    SELECT id, pool, row_number() OVER (PARTITION BY pool ORDER BY place) AS position FROM leases WHERE status = 'queued'
), ends AS MATERIALIZED (
    SELECT * FROM (
        SELECT pool, expires_at, row_number() OVER (PARTITION BY pool ORDER BY expires_at) AS position
        FROM leases WHERE live AND expires_at IS NOT NULL) AS numbered
    WHERE position <= (SELECT max(position) FROM queue)
)
SELECT l.id, l.email, l.status, l.pool, q.position::integer,
       CASE WHEN q.id IS NOT NULL AND e.expires_at IS NOT NULL
           THEN greatest(0, ceil(extract(epoch FROM e.expires_at - clock())))::integer END AS eta_seconds,
       l.vm_id, l.hostname, l.epoch, l.kind, l.crd_command, l.exit_code, l.output, l.failure,
       l.created_at, l.assigned_at, l.active_at, l.ended_at, l.expires_at, l.version,
       CASE WHEN NOT l.live THEN (
           SELECT CASE WHEN e.db_role LIKE 'lablink\_vm\_%' THEN 'machine'
                       WHEN e.actor = 'web' AND l.status <> 'failed' THEN 'holder'
                       WHEN e.actor IN ('web', 'sweep') THEN 'service' ELSE 'admin' END
           FROM events e WHERE e.lease_id = l.id AND e.kind = 'lease.' || l.status LIMIT 1) END AS ended_by
FROM leases l LEFT JOIN queue q ON q.id = l.id AND l.status = 'queued'
LEFT JOIN ends e ON e.pool = q.pool AND e.position = q.position;

-- Which of the leases the token beside it opens; who brings another one is not told whether it is there.
CREATE OR REPLACE FUNCTION opened_leases(p_leases uuid[], p_tokens_sha256 bytea[]) RETURNS TABLE (id uuid, token_sha256 bytea)
LANGUAGE sql STABLE SECURITY DEFINER ROWS 10 SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT l.id, l.token_sha256 FROM unnest(p_leases, p_tokens_sha256) AS shown (id, token_sha256)
    JOIN public.leases l ON l.id = shown.id AND l.token_sha256 = shown.token_sha256;
END;

-- One lease for whoever brings its token, as allocators of version 7 ask for it.
CREATE OR REPLACE FUNCTION lease_view(p_lease uuid, p_token_sha256 bytea) RETURNS SETOF lease_views
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT v.* FROM public.lease_views v JOIN public.leases l ON l.id = v.id
    WHERE l.id = p_lease AND l.token_sha256 = p_token_sha256;
END;

-- A machine as anybody may see it: nothing personal in it.
CREATE OR REPLACE VIEW vm_views AS
SELECT v.id, v.hostname, v.status, v.pool, v.created_at, v.updated_at, h.seen_at
FROM vms v LEFT JOIN vm_heartbeats h ON h.vm_id = v.id
WHERE v.status <> 'retired' ORDER BY length(v.hostname), v.hostname;

-- The pool at a glance: machines that can be had now, that are lent, that are on their way; people who wait.
CREATE OR REPLACE FUNCTION pool_counts(
    p_pool text, OUT free bigint, OUT lent bigint, OUT coming bigint, OUT waiting bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT count(*) FILTER (WHERE v.status = 'available' AND NOT v.draining
                                AND h.seen_at > (SELECT public.clock() - public.fresh_for())),
           count(*) FILTER (WHERE v.status = 'in-use'),
           count(*) FILTER (WHERE v.status IN ('booting', 'cleaning') AND NOT v.draining),
           (SELECT count(*) FROM public.leases WHERE pool = p_pool AND status = 'queued')
    FROM public.vms v LEFT JOIN public.vm_heartbeats h ON h.vm_id = v.id WHERE v.pool = p_pool;
END;

-- Machines that a request would get at once.
CREATE OR REPLACE FUNCTION unassigned_vms_count() RETURNS integer
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT count(*)::integer FROM public.vms v JOIN public.vm_heartbeats h ON h.vm_id = v.id
    WHERE v.status = 'available' AND NOT v.draining AND h.seen_at > (SELECT public.clock() - public.fresh_for());
END;

-- Every rule of docs/states.md that a row can break; no row means that all hold. `lablink verify` prints them.
CREATE OR REPLACE FUNCTION broken_invariants() RETURNS TABLE (rule text, what text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT 'I1', format('VM %s has %s live leases', vm_id, count(*)) FROM public.leases
    WHERE live AND vm_id IS NOT NULL GROUP BY vm_id HAVING count(*) > 1
    UNION ALL
    SELECT 'I1', format('one person has the live leases %s', string_agg(id::text, ', ')) FROM public.leases
    WHERE live AND position('@' IN email) > 0 GROUP BY lower(email) HAVING count(*) > 1
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
        WHERE e.vm_id = v.id AND (e.kind = 'vm.deleted' OR e.kind LIKE 'vm.%' AND e.detail ->> 'epoch' ~ '^[0-9]{1,18}$')
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
    SELECT 'L1', format('lease %s is %s past its deadline', id, status) FROM public.leases
    WHERE live AND coalesce(deadline, expires_at) < public.clock() - interval '30 seconds'
    UNION ALL
    SELECT 'L2', format('pool %s has a free VM and somebody who waits since %s', l.pool, min(l.created_at)) FROM public.leases l
    JOIN public.vms v ON v.pool = l.pool AND v.status = 'available' AND NOT v.draining AND v.updated_at < public.clock() - interval '15 seconds'
    JOIN public.vm_heartbeats h ON h.vm_id = v.id AND h.seen_at > public.clock() - public.fresh_for()
    WHERE l.status = 'queued' AND l.created_at < public.clock() - interval '15 seconds' GROUP BY l.pool
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

-- The hub, where many machines speak at once: each question is asked of the database once, for all of them.

-- From here to the end of the transaction many machines speak: what becomes of each is its own doing (guard_new_event).
CREATE OR REPLACE FUNCTION speak_for_many() RETURNS void LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT set_config('lablink.machine', '*', true);
END;

-- The machines in service whose tokens these are, by their places. It pins no search_path, so that it becomes part of the
-- question it stands in: asked by itself, nobody would know that it finds a few of many. What is wanted of them is asked of
-- those that were found (OFFSET 0, ORDER BY): of all machines, the planner may think that only one is in use. Each is looked up
-- by itself (LIMIT): planned while there were none, a join would read all of them, once for each of them.
CREATE OR REPLACE FUNCTION hub_callers(p_tokens bytea[]) RETURNS TABLE (place bigint, vm vms, login oid) LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT s.place, v.vm, l.oid FROM unnest(p_tokens) WITH ORDINALITY AS s (token, place),
    LATERAL (SELECT r.role FROM public.vm_roles r WHERE r.hub_sha256 = s.token LIMIT 1) AS r,
    LATERAL (SELECT l.oid FROM pg_catalog.pg_roles l WHERE l.rolname = r.role AND l.rolcanlogin LIMIT 1) AS l,
    LATERAL (SELECT v AS vm FROM public.vms v WHERE v.role = r.role LIMIT 1) AS v
    WHERE (v.vm).status <> 'retired';
END;

-- The hellos of many machines that came together, one of the arrays' places each. Answers all but those that remember more
-- than the database, and those of machines that are retired or whose row somebody keeps locked: these are to be made one by
-- one. A heartbeat that somebody keeps locked is left as it is. So nobody waits for another, nor for any number of nobodies.
-- Planned once, for keys: planning it for each call would take longer than a few answers do, and for a table that was small
-- would read all of it later.
CREATE OR REPLACE FUNCTION hub_hello(p_tokens bytea[], p_epochs bigint[], p_leases uuid[], p_idle integer[])
RETURNS TABLE (place bigint, answer jsonb) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    period double precision := hello_period();
BEGIN
    IF NOT hub_welcome(p_tokens, p_epochs, p_leases) THEN
        PERFORM answer_before_the_disk();  -- a heartbeat that a crash loses is said again
    END IF;
    RETURN QUERY
    WITH callers AS MATERIALIZED (
        SELECT c.place AS its_place, c.vm, c.login FROM (SELECT * FROM hub_callers(p_tokens) OFFSET 0) c
        WHERE (c.vm).status <> 'booting' AND (c.vm).reason IS DISTINCT FROM 'lost'
        AND NOT is_ahead(c.vm, p_epochs[c.place], p_leases[c.place])
        AND (SELECT true FROM vm_heartbeats h WHERE h.vm_id = (c.vm).id)
    ), free AS (
        SELECT h.vm_id FROM vm_heartbeats h WHERE h.vm_id = ANY (ARRAY(SELECT (vm).id FROM callers))
        ORDER BY h.vm_id FOR UPDATE SKIP LOCKED
    ), beat AS (  -- a join would be planned for any number of them
        UPDATE vm_heartbeats SET seen_at = clock(), used_at = clock() - make_interval(secs => ((
            SELECT jsonb_object_agg((vm).id, greatest(p_idle[its_place], 0)) FILTER (WHERE p_idle[its_place] IS NOT NULL) FROM callers)
            ->> vm_id::text)::integer)
        WHERE vm_id = ANY (ARRAY(SELECT free.vm_id FROM free))
    )
    SELECT c.its_place, jsonb_build_object('answer', jsonb_build_object(
        'vm_id', (c.vm).id, 'hostname', (c.vm).hostname, 'status', (c.vm).status, 'epoch', (c.vm).epoch,
        'lease_id', (c.vm).lease_id, 'lease_status', l.status, 'kind', l.kind, 'period_seconds', period) || to_jsonb(w))
    FROM callers c CROSS JOIN hub_wishes(c.login, (c.vm).pool) w
    LEFT JOIN LATERAL (SELECT o.status, ordered_kind(o) AS kind FROM leases o WHERE o.id = (c.vm).lease_id LIMIT 1) AS l ON true
    UNION ALL
    SELECT s.place, jsonb_build_object('refused', 'LL010', 'why', 'this token is no machine''s (any more)')
    FROM unnest(p_tokens) WITH ORDINALITY AS s (token, place) WHERE (
        SELECT l.oid FROM (SELECT r.role FROM vm_roles r WHERE r.hub_sha256 = s.token LIMIT 1) AS r
        JOIN pg_roles l ON l.rolname = r.role AND l.rolcanlogin) IS NULL;
END $$;

-- What allocators of version 8 ask, of machines that say nothing of their use.
CREATE OR REPLACE FUNCTION hub_hello(p_tokens bytea[], p_epochs bigint[], p_leases uuid[])
RETURNS TABLE (place bigint, answer jsonb) LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
SELECT * FROM hub_hello(p_tokens, p_epochs, p_leases, '{}')
$$;

-- What welcome_vm does, for all of these whose first contact it is or who were lost. Says whether there was one. Their rows
-- come before their heartbeats: who is new has none that anybody could keep.
CREATE OR REPLACE FUNCTION hub_welcome(p_tokens bytea[], p_epochs bigint[], p_leases uuid[]) RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    come     integer[] := ARRAY(
        SELECT (c.vm).id FROM (SELECT * FROM hub_callers(p_tokens) OFFSET 0) c WHERE ((c.vm).status = 'booting' OR (c.vm).reason = 'lost')
        AND NOT is_ahead(c.vm, p_epochs[c.place], p_leases[c.place]));
    machines integer[] := ARRAY(
        SELECT id FROM vms WHERE id = ANY (come) AND (status = 'booting' OR reason = 'lost') ORDER BY id FOR UPDATE SKIP LOCKED);
BEGIN
    IF cardinality(machines) = 0 THEN
        RETURN false;
    END IF;
    PERFORM speak_for_many();
    INSERT INTO vm_heartbeats (vm_id, seen_at) SELECT m.id, clock() FROM unnest(machines) AS m (id)
    WHERE NOT EXISTS (SELECT FROM vm_heartbeats h WHERE h.vm_id = m.id) ON CONFLICT DO NOTHING;
    UPDATE vm_heartbeats h SET seen_at = clock() FROM (
        SELECT vm_id FROM vm_heartbeats WHERE vm_id = ANY (machines) ORDER BY vm_id FOR UPDATE SKIP LOCKED) AS free
    WHERE h.vm_id = free.vm_id;
    UPDATE vms SET status = CASE WHEN status = 'booting' AND cleaned_epoch = epoch THEN 'available' ELSE 'cleaning' END
    WHERE id = ANY (machines);
    PERFORM serve_queues(ARRAY(SELECT DISTINCT v.pool FROM vms v WHERE v.id = ANY (machines) AND v.status = 'available'));
    RETURN true;
END $$;

-- The claims of many machines that came together. Answers those that are the first of their lease and in nobody's way, as
-- client_api.claim does; the others are to be made one by one.
CREATE OR REPLACE FUNCTION hub_claim(p_tokens bytea[], p_epochs bigint[])
RETURNS TABLE (place bigint, answer jsonb) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    places bigint[];
    taken  uuid[];
BEGIN
    SELECT array_agg(c.place), array_agg(l.id) INTO places, taken
    FROM (SELECT * FROM hub_callers(p_tokens) ORDER BY (vm).id) c,
    LATERAL (SELECT v.status, v.epoch, v.lease_id FROM vms v WHERE v.id = (c.vm).id FOR UPDATE SKIP LOCKED) v,
    LATERAL (SELECT l.id FROM leases l WHERE l.id = v.lease_id AND l.status = 'assigned' AND NOT l.needs_line
             FOR UPDATE SKIP LOCKED) l
    WHERE v.status = 'in-use' AND v.epoch = p_epochs[c.place];
    IF taken IS NULL THEN
        RETURN;
    END IF;
    PERFORM speak_for_many(), answer_before_the_disk();  -- a claim that a crash loses is made again
    UPDATE leases SET status = 'claimed' WHERE id = ANY (taken);
    RETURN QUERY
    SELECT m.place, jsonb_build_object('answer', jsonb_build_object(
        'lease_id', l.id, 'epoch', l.epoch, 'kind', l.kind, 'command', l.command, 'secrets', s.secrets, 'line', s.line,
        'accepts_desktop', p.accepts_desktop, 'programs', p.programs, 'limit_seconds', p.command_seconds::double precision))
    FROM unnest(places, taken) AS m (place, lease) JOIN leases l ON l.id = m.lease
    JOIN pools p ON p.name = l.pool LEFT JOIN lease_secrets s ON s.lease_id = l.id;
END $$;

-- The reports of many machines that came together. Answers those about the lease that the machine has claimed, of a known kind,
-- which nobody keeps locked, as client_api.report does; the others are to be made one by one: also those after which a job begins
-- again. An exit has its code.
CREATE OR REPLACE FUNCTION hub_report(
    p_tokens bytea[], p_leases uuid[], p_epochs bigint[], p_outcomes text[], p_exit_codes integer[], p_outputs text[], p_failures text[])
RETURNS TABLE (place bigint, answer jsonb) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    places  bigint[];
    changed leases[];
    begun   boolean;  -- by all: nothing else was reported
BEGIN
    SELECT array_agg(c.place), bool_and(p_outcomes[c.place] = 'started'), array_agg(reported(
        l.lease, p_outcomes[c.place], p_exit_codes[c.place], p_outputs[c.place], p_failures[c.place])) INTO places, begun, changed
    FROM (SELECT DISTINCT ON ((h.vm).id) h.* FROM hub_callers(p_tokens) h ORDER BY (h.vm).id, h.place) c,
    LATERAL (SELECT FROM vms v WHERE v.id = (c.vm).id AND (v.epoch, v.lease_id) = (p_epochs[c.place], p_leases[c.place])
             FOR UPDATE SKIP LOCKED) v,
    LATERAL (SELECT l AS lease FROM leases l WHERE l.id = p_leases[c.place] AND l.status IN ('claimed', 'active')
             AND l.kind IN ('desktop', 'job') AND NOT begins_again(l, p_outcomes[c.place], p_failures[c.place])
             FOR UPDATE SKIP LOCKED) l;
    IF changed IS NULL THEN
        RETURN;
    END IF;
    PERFORM speak_for_many();
    IF begun THEN
        PERFORM answer_before_the_disk();  -- a start that a crash loses is said again, for the lease is not active then
    END IF;
    UPDATE leases l SET started_at = r.started_at, exit_code = r.exit_code, output = r.output, failure = r.failure,
           trouble = r.trouble, needs_line = r.needs_line, status = r.status
    FROM unnest(changed) r WHERE l.id = r.id;
    RETURN QUERY SELECT places[n], jsonb_build_object('answer', changed[n].status) FROM generate_subscripts(places, 1) AS n;
END $$;

-- The same for machines that wiped themselves: those that were to, whose row nobody keeps locked. Whoever waits gets them.
CREATE OR REPLACE FUNCTION hub_cleaned(p_tokens bytea[], p_epochs bigint[])
RETURNS TABLE (place bigint, answer jsonb) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    places   bigint[];
    machines integer[];
BEGIN
    SELECT array_agg(c.place), array_agg((c.vm).id) INTO places, machines
    FROM (SELECT DISTINCT ON ((h.vm).id) h.* FROM hub_callers(p_tokens) h ORDER BY (h.vm).id, h.place) c,
    LATERAL (SELECT FROM vms v WHERE v.id = (c.vm).id AND v.status = 'cleaning' AND v.epoch = p_epochs[c.place]
             FOR UPDATE SKIP LOCKED) v;
    IF machines IS NULL THEN
        RETURN;
    END IF;
    PERFORM speak_for_many();
    UPDATE vms SET status = 'available', cleaned_epoch = epoch WHERE id = ANY (machines);
    IF serve_queues(ARRAY(SELECT DISTINCT v.pool FROM vms v WHERE v.id = ANY (machines))) = 0 THEN
        PERFORM answer_before_the_disk();  -- a crash that loses it finds the machines cleaning, and they clean again
    END IF;
    RETURN QUERY SELECT m.place, jsonb_build_object('answer', v.status)
    FROM unnest(places, machines) AS m (place, vm) JOIN vms v ON v.id = m.vm;
END $$;

-- What a person may do: ask for a machine, and hand it back.

-- Accepts a request, or finds the one it repeats. outcome: created | repeated | live (this e-mail holds a lease already).
-- Allocators of the version before call this one; this version's ask request_vms, also for one.
-- p_command has no secret in it; p_secrets ({code, pin}) lives in lease_secrets until it is delivered.
CREATE OR REPLACE FUNCTION request_vm(
    p_email text, p_kind text, p_command jsonb, p_secrets jsonb, p_summary text, p_token_sha256 bytea, p_token_salt bytea,
    p_idempotency_sha256 bytea DEFAULT NULL, p_request_sha256 bytea DEFAULT NULL, p_pool text DEFAULT 'default')
RETURNS TABLE (lease_id uuid, outcome text, token_salt bytea) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    answer record;
BEGIN
    SELECT * INTO answer FROM request_vms(
        ARRAY[p_email], ARRAY[p_kind], ARRAY[p_command], ARRAY[p_secrets], ARRAY[p_summary], ARRAY[p_token_sha256],
        ARRAY[p_token_salt], ARRAY[p_idempotency_sha256], ARRAY[p_request_sha256], ARRAY[p_pool]);
    IF answer.refused IS NOT NULL THEN
        PERFORM refuse_request(answer.refused, p_pool);
    END IF;
    RETURN QUERY SELECT answer.lease_id, answer.outcome, answer.token_salt;
END $$;

-- The same for requests that came together, first come first served: row by row what request_vm would have answered, had
-- each come alone. A refusal is its SQLSTATE in `refused`, and nobody else's. p_patience limits for how long all of them wait
-- for what somebody else is changing: then the whole call fails with 55P03, to be asked one by one. vm_id and epoch are of the
-- machine that a new lease got at once. abounds says that the pool had p_many free machines; it is looked at only where a
-- twelfth as many ask, so that nobody alone waits for it. Plans are made once in a session, maybe while the tables are empty: rows are looked up
-- one by one, whatever a planner thinks of that.
CREATE OR REPLACE FUNCTION request_vms(
    p_emails text[], p_kinds text[], p_commands jsonb[], p_secrets jsonb[], p_summaries text[], p_tokens_sha256 bytea[],
    p_token_salts bytea[], p_idempotency_sha256 bytea[], p_requests_sha256 bytea[], p_pools text[], p_patience text DEFAULT NULL,
    p_many integer DEFAULT NULL)
RETURNS TABLE (lease_id uuid, outcome text, token_salt bytea, vm_id integer, epoch bigint, refused text, abounds boolean)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    asked     record;
    opened    record;
    abounding text[] := '{}';
BEGIN
    IF p_patience IS NOT NULL THEN
        p_patience := set_config('lock_timeout', p_patience, true);
    END IF;
    IF 12 * cardinality(p_pools) >= p_many THEN
        abounding := ARRAY(SELECT p.name FROM pools p WHERE p.name = ANY (p_pools) AND EXISTS (
            SELECT FROM vms v WHERE v.pool = p.name AND v.status = 'available' AND NOT v.draining OFFSET p_many - 1));
    END IF;
    asked := machines_at_once(p_pools, p_kinds, p_commands);
    opened := open_requests(
        asked.ids, asked.machines, p_emails, p_pools, p_kinds, p_commands, p_summaries, p_tokens_sha256, p_token_salts,
        p_idempotency_sha256, p_requests_sha256);
    IF array_remove(p_secrets, NULL) <> '{}' THEN
        INSERT INTO lease_secrets (lease_id, secrets)
        SELECT r.id, r.secrets FROM unnest(asked.ids, p_secrets) AS r (id, secrets)
        WHERE r.secrets IS NOT NULL AND (SELECT true FROM leases l WHERE l.id = r.id);
    END IF;
    IF opened.waiting > 0 THEN
        PERFORM serve_queue(l.pool, (array_agg(l.id ORDER BY l.place DESC))[1])
        FROM leases l WHERE l.id = ANY (asked.ids) AND l.status = 'queued' GROUP BY l.pool;
    ELSIF opened.leases = 1 AND cardinality(p_pools) = 1 THEN  -- nearly all: the answer is known
        RETURN QUERY VALUES (
            asked.ids[1], 'created', p_token_salts[1], asked.machines[1], opened.epoch, NULL, p_pools = abounding);
        RETURN;
    END IF;
    RETURN QUERY SELECT a.* FROM answers_to_requests(
        asked.ids, asked.refusals, p_emails, p_idempotency_sha256, p_requests_sha256, p_pools, abounding) a;
END $$;

-- What stands in the way of a new lease: the same request, another one with this key (LL007), or the person's live lease;
-- when that ended at this moment (40001), the request is to be made again.
CREATE OR REPLACE FUNCTION request_before(p_email text, p_idempotency_sha256 bytea, p_request_sha256 bytea,
    OUT lease_id uuid, OUT outcome text, OUT token_salt bytea, OUT refused text) LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    request bytea;
BEGIN
    SELECT l.id, 'repeated', l.token_salt, l.request_sha256 INTO lease_id, outcome, token_salt, request FROM leases l
    WHERE l.idempotency_sha256 = p_idempotency_sha256;
    IF FOUND AND request IS DISTINCT FROM p_request_sha256 THEN
        SELECT NULL, NULL, NULL, 'LL007' INTO lease_id, outcome, token_salt, refused;
    ELSIF NOT FOUND THEN
        SELECT l.id, 'live' INTO lease_id, outcome FROM leases l
        WHERE l.live AND position('@' IN l.email) > 0 AND lower(l.email) = lower(p_email);
        refused := CASE WHEN NOT FOUND THEN '40001' END;
    END IF;
END $$;

-- What became of the requests, in their order: the lease that was opened for each, or what was in its way.
CREATE OR REPLACE FUNCTION answers_to_requests(
    p_ids uuid[], p_refusals text[], p_emails text[], p_idempotency_sha256 bytea[], p_requests_sha256 bytea[], p_pools text[],
    p_abounding text[])
RETURNS TABLE (lease_id uuid, outcome text, token_salt bytea, vm_id integer, epoch bigint, refused text, abounds boolean)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT answer.*, r.pool = ANY (p_abounding)
    FROM unnest(p_ids, p_refusals, p_emails, p_idempotency_sha256, p_requests_sha256, p_pools)
         WITH ORDINALITY AS r (id, refusal, email, key, request, pool, number)
    LEFT JOIN LATERAL (SELECT * FROM public.leases own WHERE own.id = r.id LIMIT 1) AS l ON true,
    LATERAL (SELECT l.id, CASE WHEN r.refusal IS NULL THEN 'created' END, l.token_salt, l.vm_id, l.epoch, r.refusal
             WHERE num_nonnulls(l.id, r.refusal) = 1
             UNION ALL SELECT b.lease_id, b.outcome, b.token_salt, NULL, NULL, b.refused
             FROM public.request_before(r.email, r.key, r.request) AS b WHERE num_nonnulls(l.id, r.refusal) = 0) AS answer
    ORDER BY r.number;
END;

-- Why a pool refuses a request: there is none (LL005), or it does not run this command (LL009; the client checks again on the
-- machine). Null where it does not.
CREATE OR REPLACE FUNCTION refusal_of(p_pool text, p_accepts_desktop boolean, p_programs text[], p_kind text, p_command jsonb)
RETURNS text LANGUAGE sql IMMUTABLE
RETURN CASE
    WHEN p_pool IS NULL THEN 'LL005'
    WHEN NOT coalesce(CASE p_kind WHEN 'desktop' THEN p_accepts_desktop
                      WHEN 'job' THEN p_command -> 'argv' ->> 0 = ANY (p_programs) END, false) THEN 'LL009' END;

-- For each request why its pool refuses it; or the id of its lease, and the free machine that it gets at once, locked, first come
-- first served.
CREATE OR REPLACE FUNCTION machines_at_once(
    p_pools text[], p_kinds text[], p_commands jsonb[], OUT refusals text[], OUT ids uuid[], OUT machines integer[])
LANGUAGE plpgsql AS $$
DECLARE
    this record;
BEGIN
    IF cardinality(p_pools) = 1 THEN  -- nearly all: no more than they need
        SELECT p.*, EXISTS (SELECT FROM leases q WHERE q.pool = p.name AND q.status = 'queued') AS has_queue INTO this
        FROM pools p WHERE p.name = p_pools[1];
        refusals := ARRAY[refusal_of(this.name, this.accepts_desktop, this.programs, p_kinds[1], p_commands[1])];
        IF refusals[1] IS NULL THEN
            ids := ARRAY[gen_random_uuid()];
            machines := CASE WHEN NOT this.has_queue THEN free_machines(this.name, 1) END;
        END IF;
        RETURN;
    END IF;
    WITH asked AS (
        SELECT r.number, r.pool, refusal_of(p.name, p.accepts_desktop, p.programs, r.kind, r.command) AS refusal
        FROM unnest(p_pools, p_kinds, p_commands) WITH ORDINALITY AS r (pool, kind, command, number)
        LEFT JOIN pools p ON p.name = r.pool
    ), taken AS MATERIALIZED (
        SELECT pool, free_machines(pool, count(*)) AS ids FROM asked
        WHERE refusal IS NULL AND NOT EXISTS (SELECT FROM leases q WHERE q.pool = asked.pool AND q.status = 'queued') GROUP BY pool
    )
    SELECT array_agg(a.refusal ORDER BY a.number),
           array_agg(CASE WHEN a.refusal IS NULL THEN gen_random_uuid() END ORDER BY a.number),
           array_agg(taken.ids[a.turn] ORDER BY a.number) INTO refusals, ids, machines
    FROM (SELECT *, row_number() OVER (PARTITION BY pool, refusal ORDER BY number) AS turn FROM asked) AS a
    LEFT JOIN taken ON taken.pool = a.pool AND a.refusal IS NULL;
END $$;

-- Opens the leases that nothing is in the way of: assigned to the machine at their place in p_machines, which is lent with that; or
-- queued in the order they came. Says how many were opened, and how many of them wait. Rows are written in the order of who
-- they are for, so that no two calls wait for each other.
CREATE OR REPLACE FUNCTION open_requests(
    p_ids uuid[], p_machines integer[], p_emails text[], p_pools text[], p_kinds text[], p_commands jsonb[], p_summaries text[],
    p_tokens_sha256 bytea[], p_token_salts bytea[], p_idempotency_sha256 bytea[], p_requests_sha256 bytea[],
    OUT leases bigint, OUT waiting bigint, OUT epoch bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    WITH asked AS (
        SELECT n, p_emails[n] AS email, nextval('leases_place_seq') AS place FROM generate_series(1, cardinality(p_ids)) AS n
        WHERE p_ids[n] IS NOT NULL
    ), begun AS (
        INSERT INTO leases (id, place, email, status, pool, kind, command, crd_command, vm_id, hostname, epoch, token_sha256,
                            token_salt, idempotency_sha256, request_sha256, assigned_at, deadline, expires_at)
            OVERRIDING SYSTEM VALUE
        SELECT p_ids[n], a.place, a.email, CASE WHEN v.id IS NULL THEN 'queued' ELSE 'assigned' END, p_pools[n], p_kinds[n],
               p_commands[n], p_summaries[n], v.id, v.hostname, v.epoch + 1, p_tokens_sha256[n], p_token_salts[n],
               p_idempotency_sha256[n], p_requests_sha256[n], CASE WHEN v.id IS NOT NULL THEN clock() END,
               CASE WHEN v.id IS NOT NULL THEN clock() + make_interval(secs => p.claim_seconds) END,
               CASE WHEN v.id IS NOT NULL THEN clock() + make_interval(secs => p.lease_seconds) END
        FROM asked a JOIN pools p ON p.name = p_pools[n]
             LEFT JOIN LATERAL (SELECT * FROM vms free WHERE free.id = p_machines[n] LIMIT 1) AS v ON true
        ORDER BY lower(a.email) COLLATE "C", a.place ON CONFLICT DO NOTHING RETURNING id, email, crd_command, vm_id, epoch
    ), lent AS (
        UPDATE vms v SET status = 'in-use', epoch = l.epoch, lease_id = l.id, email = l.email, crd_command = l.crd_command,
               updated_at = clock()
        FROM begun l WHERE v.id = l.vm_id
    )
    SELECT count(*), count(*) FILTER (WHERE vm_id IS NULL), max(b.epoch) INTO leases, waiting, epoch FROM begun b;
END $$;

-- Raises a refusal of request_vms, in words.
CREATE OR REPLACE FUNCTION refuse_request(p_refused text, p_pool text) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    this pools;
BEGIN
    IF p_refused IN ('LL005', 'LL009') THEN
        this := pool_named(p_pool);
        RAISE EXCEPTION 'pool % does not accept this command', p_pool USING ERRCODE = 'LL009',
            HINT = format('It accepts: %s', array_to_string(this.programs
                || CASE WHEN this.accepts_desktop THEN ARRAY['Chrome Remote Desktop''s start-host'] END, ', '));
    ELSIF p_refused = 'LL007' THEN
        RAISE EXCEPTION 'this Idempotency-Key was used for a different request' USING ERRCODE = 'LL007',
            HINT = 'Send the same request again, or a new key with the new one.';
    END IF;
    RAISE EXCEPTION 'the lease in the way ended at this moment' USING ERRCODE = 'serialization_failure', HINT = 'Try again.';
END $$;

-- Locks free, fresh machines of the pool, at most so many, the one that was free longest first. The order is one that only the
-- index vms_free has, and heartbeats are looked up one by one: no plan may walk over all machines.
CREATE OR REPLACE FUNCTION free_machines(p_pool text, p_number bigint) RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
    fresh_since timestamptz := clock() - fresh_for();
BEGIN
    RETURN ARRAY(
        SELECT v.id FROM vms v WHERE v.pool = p_pool AND v.status = 'available' AND NOT v.draining
        AND (SELECT h.seen_at FROM vm_heartbeats h WHERE h.vm_id = v.id) > fresh_since
        ORDER BY v.updated_at, v.id LIMIT p_number FOR UPDATE SKIP LOCKED);
END $$;

-- Gives free machines of the pool to those who wait, first come first served, up to p_until (everybody, when it is null) as far
-- as they go. Returns how many were served, at most 500 so that nobody waits long for the caller.
CREATE OR REPLACE FUNCTION serve_queue(p_pool text, p_until uuid DEFAULT NULL) RETURNS integer LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    people   integer;
    machines integer[];
    waiting  uuid[];
BEGIN
    SELECT count(*) INTO people FROM (
        SELECT FROM leases l WHERE l.pool = p_pool AND l.status = 'queued'
        AND l.place <= coalesce((SELECT place FROM leases WHERE id = p_until), l.place) LIMIT 500) AS those
    WHERE EXISTS (SELECT FROM vms v WHERE v.pool = p_pool AND NOT v.draining AND v.status = 'available');
    IF people = 0 THEN
        RETURN 0;
    END IF;
    machines := free_machines(p_pool, people);
    waiting := ARRAY(
        SELECT l.id FROM leases l WHERE l.pool = p_pool AND l.status = 'queued'
        ORDER BY l.place LIMIT cardinality(machines) FOR UPDATE SKIP LOCKED);
    IF cardinality(waiting) > 0 THEN
        UPDATE vms v SET status = 'in-use', lease_id = pair.lease FROM unnest(machines, waiting) AS pair (vm, lease)
        WHERE v.id = pair.vm AND pair.lease IS NOT NULL;
    END IF;
    RETURN cardinality(waiting);
END $$;

-- The person hands the machine back, or stops waiting. Returns the lease's status; a terminal one stays as it is.
CREATE OR REPLACE FUNCTION end_lease(p_lease uuid) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    lease          leases;
    machine_locked boolean;
BEGIN
    PERFORM FROM vms WHERE lease_id = p_lease FOR UPDATE;
    machine_locked := FOUND;
    SELECT * INTO lease FROM leases WHERE id = p_lease FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no lease %', p_lease USING ERRCODE = 'LL004', HINT = 'List them: lablink leases list.';
    ELSIF lease.live AND lease.vm_id IS NOT NULL AND NOT machine_locked THEN
        RAISE EXCEPTION 'the lease got its machine at this moment' USING ERRCODE = 'serialization_failure',
            HINT = 'Try again.';
    ELSIF NOT lease.live THEN
        RETURN lease.status;
    END IF;
    UPDATE leases SET status = CASE WHEN lease.status = 'active' THEN 'ended' ELSE 'cancelled' END
    WHERE id = p_lease RETURNING status INTO lease.status;
    RETURN lease.status;
END $$;

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
-- machine that a new lease got at once.
CREATE OR REPLACE FUNCTION request_vms(
    p_emails text[], p_kinds text[], p_commands jsonb[], p_secrets jsonb[], p_summaries text[], p_tokens_sha256 bytea[],
    p_token_salts bytea[], p_idempotency_sha256 bytea[], p_requests_sha256 bytea[], p_pools text[], p_patience text DEFAULT NULL)
RETURNS TABLE (lease_id uuid, outcome text, token_salt bytea, vm_id integer, epoch bigint, refused text) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    refusals text[] := refused_requests(p_pools, p_kinds, p_commands);
    ids      uuid[] := ARRAY(SELECT CASE WHEN refusal IS NULL THEN gen_random_uuid() END FROM unnest(refusals) AS r (refusal));
BEGIN
    IF p_patience IS NOT NULL THEN
        p_patience := set_config('lock_timeout', p_patience, true);
    END IF;
    ids := open_requests(ids, p_emails, p_pools, p_kinds, p_commands, p_summaries, p_tokens_sha256, p_token_salts,
                         p_idempotency_sha256, p_requests_sha256);
    INSERT INTO lease_secrets (lease_id, secrets)
    SELECT r.id, r.secrets FROM unnest(ids, p_secrets) AS r (id, secrets) WHERE num_nulls(r.id, r.secrets) = 0;
    PERFORM serve_queue(r.pool, (array_agg(r.id ORDER BY r.number DESC))[1])
    FROM unnest(ids, p_pools) WITH ORDINALITY AS r (id, pool, number) WHERE r.id IS NOT NULL GROUP BY r.pool;
    RETURN QUERY SELECT answer.*
    FROM unnest(ids, refusals, p_emails, p_token_salts, p_idempotency_sha256, p_requests_sha256)
         WITH ORDINALITY AS r (id, refusal, email, salt, key, request, number),
    LATERAL (SELECT l.id, 'created', r.salt, l.vm_id, l.epoch, NULL FROM leases l WHERE l.id = r.id
             UNION ALL SELECT NULL, NULL, NULL, NULL, NULL, r.refusal WHERE r.refusal IS NOT NULL
             UNION ALL SELECT b.lease_id, b.outcome, b.token_salt, NULL, NULL, b.refused
             FROM request_before(r.email, r.key, r.request) b WHERE r.id IS NULL AND r.refusal IS NULL)
         AS answer ORDER BY r.number;
END $$;

-- Opens the leases that nothing is in the way of, queued in the order they came. Returns their ids, null instead of the others.
-- Rows are written in the order of who they are for, so that no two calls wait for each other.
CREATE OR REPLACE FUNCTION open_requests(
    p_ids uuid[], p_emails text[], p_pools text[], p_kinds text[], p_commands jsonb[], p_summaries text[], p_tokens_sha256 bytea[],
    p_token_salts bytea[], p_idempotency_sha256 bytea[], p_requests_sha256 bytea[]) RETURNS uuid[] LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    opened uuid[];
BEGIN
    WITH begun AS (
        INSERT INTO leases (id, place, email, pool, kind, command, crd_command, token_sha256, token_salt,
                            idempotency_sha256, request_sha256) OVERRIDING SYSTEM VALUE
        SELECT * FROM (
            SELECT r.id, nextval('leases_place_seq') AS place, r.email, r.pool, r.kind, r.command, r.summary, r.token, r.salt,
                   r.key, r.request
            FROM unnest(p_ids, p_emails, p_pools, p_kinds, p_commands, p_summaries, p_tokens_sha256, p_token_salts,
                        p_idempotency_sha256, p_requests_sha256)
                 AS r (id, email, pool, kind, command, summary, token, salt, key, request) WHERE r.id IS NOT NULL) AS asked
        ORDER BY lower(email), place ON CONFLICT DO NOTHING RETURNING id)
    SELECT array_agg(b.id ORDER BY r.number) INTO opened
    FROM unnest(p_ids) WITH ORDINALITY AS r (id, number) LEFT JOIN begun b ON b.id = r.id;
    RETURN opened;
END $$;

-- What stands in the way of a new lease: the same request, another one with this key (LL007), or the person's live lease;
-- when that ended at this moment (40001), the request is to be made again.
CREATE OR REPLACE FUNCTION request_before(p_email text, p_idempotency_sha256 bytea, p_request_sha256 bytea)
RETURNS TABLE (lease_id uuid, outcome text, token_salt bytea, refused text) LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    found_lease leases;
BEGIN
    SELECT * INTO found_lease FROM leases l WHERE l.idempotency_sha256 = p_idempotency_sha256;
    IF FOUND AND found_lease.request_sha256 IS DISTINCT FROM p_request_sha256 THEN
        RETURN QUERY SELECT NULL::uuid, NULL, NULL::bytea, 'LL007';
    ELSIF FOUND THEN
        RETURN QUERY SELECT found_lease.id, 'repeated', found_lease.token_salt, NULL;
    ELSE
        RETURN QUERY SELECT l.id, 'live', NULL::bytea, NULL FROM leases l
        WHERE l.live AND position('@' IN l.email) > 0 AND lower(l.email) = lower(p_email);
        IF NOT FOUND THEN
            RETURN QUERY SELECT NULL::uuid, NULL, NULL::bytea, '40001';
        END IF;
    END IF;
END $$;

-- For each request, why its pool refuses it: there is none (LL005), or it does not run this command (LL009; the client checks
-- again on the machine). Null where it is taken.
CREATE OR REPLACE FUNCTION refused_requests(p_pools text[], p_kinds text[], p_commands jsonb[]) RETURNS text[] LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT array_agg(CASE
        WHEN p.name IS NULL THEN 'LL005'
        WHEN NOT coalesce(CASE r.kind WHEN 'desktop' THEN p.accepts_desktop
                          WHEN 'job' THEN r.command -> 'argv' ->> 0 = ANY (p.programs) END, false) THEN 'LL009' END ORDER BY r.number)
    FROM unnest(p_pools, p_kinds, p_commands) WITH ORDINALITY AS r (pool, kind, command, number)
    LEFT JOIN public.pools p ON p.name = r.pool;
END;

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

-- Gives free, fresh machines of the pool to those who wait, first come first served, up to p_until (everybody, when it is
-- null) as far as they go; the machine that was free longest goes first. Returns how many were served, at most 500 so that
-- nobody waits long for the caller. The order is one that only the index vms_free has, and heartbeats are looked up one by
-- one: no plan may walk over all machines.
CREATE OR REPLACE FUNCTION serve_queue(p_pool text, p_until uuid DEFAULT NULL) RETURNS integer LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    fresh_since timestamptz := clock() - fresh_for();
    people      integer;
    machines    integer[];
    waiting     uuid[];
BEGIN
    SELECT count(*) INTO people FROM (
        SELECT FROM leases l WHERE l.pool = p_pool AND l.status = 'queued'
        AND l.place <= coalesce((SELECT place FROM leases WHERE id = p_until), l.place) LIMIT 500) AS those
    WHERE EXISTS (SELECT FROM vms v WHERE v.pool = p_pool AND NOT v.draining AND v.status = 'available');
    IF people = 0 THEN
        RETURN 0;
    END IF;
    machines := ARRAY(
        SELECT v.id FROM vms v WHERE v.pool = p_pool AND v.status = 'available' AND NOT v.draining
        AND (SELECT h.seen_at FROM vm_heartbeats h WHERE h.vm_id = v.id) > fresh_since
        ORDER BY v.updated_at, v.id LIMIT people FOR UPDATE SKIP LOCKED);
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

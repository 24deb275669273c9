-- What a person may do: ask for a machine, and hand it back.

-- Accepts a request, or finds the one it repeats. outcome: created | repeated | live (this e-mail holds a lease already).
-- p_command has no secret in it; p_secrets ({code, pin}) lives in lease_secrets until it is delivered.
CREATE OR REPLACE FUNCTION request_vm(
    p_email text, p_kind text, p_command jsonb, p_secrets jsonb, p_summary text, p_token_sha256 bytea, p_token_salt bytea,
    p_idempotency_sha256 bytea DEFAULT NULL, p_request_sha256 bytea DEFAULT NULL, p_pool text DEFAULT 'default')
RETURNS TABLE (lease_id uuid, outcome text, token_salt bytea) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    new_id uuid;
BEGIN
    PERFORM check_acceptance(p_pool, p_kind, p_command);
    INSERT INTO leases (email, pool, kind, command, crd_command, token_sha256, token_salt, idempotency_sha256, request_sha256)
    VALUES (p_email, p_pool, p_kind, p_command, p_summary, p_token_sha256, p_token_salt, p_idempotency_sha256, p_request_sha256)
    ON CONFLICT DO NOTHING RETURNING id INTO new_id;
    IF new_id IS NULL THEN
        RETURN QUERY SELECT * FROM earlier_request(p_email, p_idempotency_sha256, p_request_sha256);
        RETURN;
    END IF;
    IF p_secrets IS NOT NULL THEN
        INSERT INTO lease_secrets (lease_id, secrets) VALUES (new_id, p_secrets);
    END IF;
    PERFORM serve_queue(p_pool, new_id);
    RETURN QUERY SELECT new_id, 'created', p_token_salt;
END $$;

-- The lease that stands in the way of a new one: the same request, or the person's live lease.
CREATE OR REPLACE FUNCTION earlier_request(p_email text, p_idempotency_sha256 bytea, p_request_sha256 bytea)
RETURNS TABLE (lease_id uuid, outcome text, token_salt bytea) LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    found_lease leases;
BEGIN
    SELECT * INTO found_lease FROM leases l WHERE l.idempotency_sha256 = p_idempotency_sha256;
    IF FOUND THEN
        IF found_lease.request_sha256 IS DISTINCT FROM p_request_sha256 THEN
            RAISE EXCEPTION 'this Idempotency-Key was used for a different request' USING ERRCODE = 'LL007',
                HINT = 'Send the same request again, or a new key with the new one.';
        END IF;
        RETURN QUERY SELECT found_lease.id, 'repeated', found_lease.token_salt;
    ELSE
        RETURN QUERY SELECT l.id, 'live', NULL::bytea FROM leases l
        WHERE l.live AND position('@' IN l.email) > 0 AND lower(l.email) = lower(p_email);
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the lease in the way ended at this moment' USING ERRCODE = 'serialization_failure',
                HINT = 'Try again.';
        END IF;
    END IF;
END $$;

-- Refuses a pool that is not there and a command that it does not run; the client checks again on the machine.
CREATE OR REPLACE FUNCTION check_acceptance(p_pool text, p_kind text, p_command jsonb) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    this pools := pool_named(p_pool);
BEGIN
    IF NOT coalesce(CASE p_kind WHEN 'desktop' THEN this.accepts_desktop
                                   WHEN 'job' THEN p_command -> 'argv' ->> 0 = ANY (this.programs) END, false) THEN
        RAISE EXCEPTION 'pool % does not accept this command', p_pool USING ERRCODE = 'LL009',
            HINT = format('It accepts: %s', array_to_string(this.programs
                || CASE WHEN this.accepts_desktop THEN ARRAY['Chrome Remote Desktop''s start-host'] END, ', '));
    END IF;
END $$;

-- Gives free, fresh machines of the pool to those who wait, first come first served, until p_until is served
-- (or everybody is, when it is null) or no machine is left; the machine that was free longest goes first. Returns how many
-- were served, at most 500 so that nobody waits long for the caller. The order is one that only the index vms_free has: no
-- plan may walk over all machines.
CREATE OR REPLACE FUNCTION serve_queue(p_pool text, p_until uuid DEFAULT NULL) RETURNS integer LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    lease       leases;
    vm          integer;
    fresh_since timestamptz := clock() - fresh_for();
    n           integer := 0;
BEGIN
    WHILE EXISTS (SELECT FROM leases l WHERE l.pool = p_pool AND l.status = 'queued') LOOP
        SELECT v.id INTO vm FROM vms v WHERE v.pool = p_pool AND v.status = 'available' AND NOT v.draining AND EXISTS (
            SELECT FROM vm_heartbeats h WHERE h.vm_id = v.id AND h.seen_at > fresh_since)
        ORDER BY v.updated_at, v.id LIMIT 1 FOR UPDATE SKIP LOCKED;
        EXIT WHEN NOT FOUND;
        SELECT * INTO lease FROM leases l WHERE l.pool = p_pool AND l.status = 'queued'
        ORDER BY l.place LIMIT 1 FOR UPDATE SKIP LOCKED;
        EXIT WHEN NOT FOUND;
        UPDATE vms SET status = 'in-use', lease_id = lease.id WHERE id = vm;
        n := n + 1;
        EXIT WHEN lease.id = p_until OR n >= 500;
    END LOOP;
    RETURN n;
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

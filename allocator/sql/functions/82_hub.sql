-- The hub: what machines say over a WebSocket, passed on by the service. Each call shows the SHA-256 of the token of the
-- machine that spoke. So the service can act only for machines that have spoken to it, and no machine for another.

-- The SHA-256 of the token with which the calling machine will speak over the hub. Whoever has it can do what the machine can.
CREATE OR REPLACE FUNCTION client_api.keep_hub_token(p_sha256 bytea) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    vm vms := client_vm(false);
BEGIN
    UPDATE vm_roles SET hub_sha256 = p_sha256 WHERE role = vm.role AND hub_sha256 IS DISTINCT FROM p_sha256;
END $$;

-- The same for a machine that enrols, which shows the join token that made its role. A token that it has stays.
CREATE OR REPLACE FUNCTION keep_hub_token(p_join_sha256 bytea, p_role text, p_sha256 bytea) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    UPDATE vm_roles SET hub_sha256 = p_sha256 WHERE role = p_role AND hub_sha256 IS NULL
        AND EXISTS (SELECT FROM join_tokens j WHERE j.token_sha256 = p_join_sha256 AND j.role = p_role);
END $$;

-- How the calling machine is to speak: direct, hub or auto.
CREATE OR REPLACE FUNCTION client_api.transport() RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    RETURN (SELECT transport FROM pools WHERE name = (client_vm(false)).pool);
END $$;

-- Makes the pool's transport what the configuration says; its machines ask now and then.
CREATE OR REPLACE FUNCTION ensure_transport(p_pool text, p_transport text) RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    UPDATE public.pools SET transport = p_transport WHERE name = p_pool AND transport <> p_transport;
END;

-- From here to the end of the transaction the machine of this token is who calls: see caller().
CREATE OR REPLACE FUNCTION speak_for(p_token_sha256 bytea) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    machine name := (SELECT r.role FROM vm_roles r JOIN pg_roles l ON l.rolname = r.role AND l.rolcanlogin
                     WHERE r.hub_sha256 = p_token_sha256);
BEGIN
    IF machine IS NULL THEN
        RAISE EXCEPTION 'this token is no machine''s (any more)' USING ERRCODE = 'LL010',
            HINT = 'Invite the machine: lablink vms invite HOSTNAME.';
    END IF;
    PERFORM set_config('lablink.machine', machine, true);
END $$;

-- What else a machine of this role and pool is told with its orders: how it is to speak, and whether it is to make itself a new
-- password.
CREATE OR REPLACE FUNCTION hub_wishes(p_role name, p_pool text) RETURNS jsonb LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT jsonb_build_object(
        'transport', (SELECT p.transport FROM public.pools p WHERE p.name = p_pool),
        'new_password', (SELECT coalesce(shobj_description(l.oid, 'pg_authid') = public.new_password_wish(), false)
                         FROM pg_roles l WHERE l.rolname = p_role));
END;

-- Does what the machine of this token said: a verb of client_api, with its arguments by name in a JSON object. Returns its
-- answer, or its refusal: nothing was done then.
CREATE OR REPLACE FUNCTION hub_call(p_token_sha256 bytea, p_verb text, p_said text) RETURNS jsonb LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    said   jsonb;
    spoken bigint;  -- the epoch that it knows
    answer jsonb;
BEGIN
    PERFORM speak_for(p_token_sha256);
    said := p_said::jsonb;
    spoken := (said ->> 'epoch')::bigint;
    CASE p_verb
        WHEN 'hello' THEN
            SELECT to_jsonb(o) || hub_wishes(caller(), v.pool) INTO answer
            FROM client_api.hello(spoken, (said ->> 'lease_id')::uuid) o JOIN vms v ON v.id = o.vm_id;
        WHEN 'claim' THEN
            SELECT to_jsonb(a) INTO answer FROM client_api.claim(spoken) a;
        WHEN 'report' THEN
            answer := to_jsonb(client_api.report(
                (said ->> 'lease_id')::uuid, spoken, said ->> 'outcome', (said ->> 'exit_code')::integer,
                said ->> 'output', said ->> 'failure', said ->> 'kind'));
        WHEN 'cleaned' THEN
            answer := to_jsonb(client_api.cleaned(spoken));
        WHEN 'unhealthy' THEN
            answer := to_jsonb(client_api.unhealthy(spoken, said ->> 'reason'));
        WHEN 'booted' THEN
            PERFORM client_api.booted((said ->> 'boot')::uuid, said -> 'phases');
        WHEN 'change_password' THEN
            answer := to_jsonb(hub_change_password(said ->> 'verifier', decode(said ->> 'hub_sha256', 'hex')));
        ELSE
            RAISE EXCEPTION 'there is no such verb' USING ERRCODE = 'LL003', HINT = 'Install the client of the allocator''s version.';
    END CASE;
    RETURN jsonb_build_object('answer', answer);
EXCEPTION WHEN SQLSTATE 'LL000' OR data_exception THEN  -- each stands for all codes that begin so
    RETURN jsonb_build_object('refused', SQLSTATE, 'why', SQLERRM);
END $$;

-- Another password, and with it another token: whoever has the old ones has nothing. Says whether it was done.
CREATE OR REPLACE FUNCTION hub_change_password(p_verifier text, p_sha256 bytea) RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF octet_length(p_sha256) IS DISTINCT FROM 32 THEN
        RAISE EXCEPTION 'a token is kept as its SHA-256, which has 32 bytes' USING ERRCODE = 'LL003',
            HINT = 'Install the client of the allocator''s version.';
    ELSIF NOT client_api.change_password(p_verifier) THEN
        RETURN false;
    END IF;
    PERFORM client_api.keep_hub_token(p_sha256);
    RETURN true;
END $$;

-- The hellos of many machines that came together, one of the arrays' places each. Answers those that change nothing but the
-- heartbeat, which are nearly all; the others, and those of nobody, are to be made one by one. A heartbeat that somebody keeps
-- locked is left as it is, so that nobody waits for it.
CREATE OR REPLACE FUNCTION hub_hello(p_tokens bytea[], p_epochs bigint[], p_leases uuid[])
RETURNS TABLE (place bigint, answer jsonb) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    period double precision := hello_period();
BEGIN
    PERFORM answer_before_the_disk();  -- a heartbeat that a crash loses is said again
    RETURN QUERY
    WITH callers AS MATERIALIZED (
        SELECT s.place AS its_place, v.id, v.hostname, v.status, v.epoch, v.lease_id, v.role, v.pool
        FROM unnest(p_tokens, p_epochs, p_leases) WITH ORDINALITY AS s (token, epoch, lease, place)
        JOIN vm_roles r ON r.hub_sha256 = s.token
        JOIN pg_roles l ON l.rolname = r.role AND l.rolcanlogin
        JOIN vms v ON v.role = r.role
        JOIN vm_heartbeats h ON h.vm_id = v.id
        WHERE v.status NOT IN ('booting', 'retired') AND v.reason IS DISTINCT FROM 'lost' AND NOT is_ahead(v, s.epoch, s.lease)
    ), free AS (
        SELECT h.vm_id FROM vm_heartbeats h WHERE h.vm_id IN (SELECT id FROM callers) ORDER BY h.vm_id FOR UPDATE SKIP LOCKED
    ), beat AS (
        UPDATE vm_heartbeats h SET seen_at = clock() FROM free WHERE h.vm_id = free.vm_id
    )
    SELECT c.its_place, jsonb_build_object('answer', jsonb_build_object(
        'vm_id', c.id, 'hostname', c.hostname, 'status', c.status, 'epoch', c.epoch, 'lease_id', c.lease_id,
        'lease_status', l.status, 'kind', l.kind, 'period_seconds', period) || hub_wishes(c.role, c.pool))
    FROM callers c LEFT JOIN leases l ON l.id = c.lease_id;
END $$;

-- The hub: what machines say over a WebSocket, passed on by the service. Each call shows the SHA-256 of the token of the
-- machine that spoke. So the service can act only for machines that have spoken to it, and no machine for another.

-- Gives a role the token of this SHA-256. Of a role that no machine has any more it is taken: a machine that is invited again before
-- its first enrolment was answered comes with the same password.
CREATE OR REPLACE FUNCTION give_hub_token(p_role name, p_sha256 bytea) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    UPDATE vm_roles r SET hub_sha256 = NULL WHERE r.hub_sha256 = p_sha256 AND r.role <> p_role
        AND NOT EXISTS (SELECT FROM vms v WHERE v.role = r.role AND v.status <> 'retired');
    UPDATE vm_roles r SET hub_sha256 = p_sha256 WHERE r.role = p_role AND r.hub_sha256 IS DISTINCT FROM p_sha256;
EXCEPTION WHEN unique_violation THEN
    RAISE EXCEPTION 'another machine has this password' USING ERRCODE = 'LL006',
        HINT = 'Two machines have one disk''s contents: empty the state directory of one and invite it again.';
END $$;

-- The SHA-256 of the token with which the calling machine will speak over the hub. Whoever has it can do what the machine can.
CREATE OR REPLACE FUNCTION client_api.keep_hub_token(p_sha256 bytea) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    vm vms := client_vm(false);
BEGIN
    PERFORM give_hub_token(vm.role, p_sha256);
END $$;

-- The same for a machine that enrols, which shows the join token that made its role. A token that it has stays.
CREATE OR REPLACE FUNCTION keep_hub_token(p_join_sha256 bytea, p_role text, p_sha256 bytea) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM join_tokens j JOIN vm_roles r ON r.role = j.role
               WHERE j.token_sha256 = p_join_sha256 AND j.role = p_role AND r.hub_sha256 IS NULL) THEN
        PERFORM give_hub_token(p_role, p_sha256);
    END IF;
END $$;

-- How the calling machine is to speak: direct, hub or auto.
CREATE OR REPLACE FUNCTION client_api.transport() RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    RETURN (SELECT transport FROM pools WHERE name = (client_vm(false)).pool);
END $$;

-- Makes the pool's transport what the configuration of version 8 says; its machines ask now and then.
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

-- What else a machine of this login and pool is told with its orders: how it is to speak, and whether it is to make itself a new
-- password. It pins no search_path, so that it becomes part of the question it stands in.
CREATE OR REPLACE FUNCTION hub_wishes(p_login oid, p_pool text) RETURNS TABLE (transport text, new_password boolean)
LANGUAGE sql STABLE ROWS 1
BEGIN ATOMIC
    SELECT p.transport, EXISTS (
        SELECT FROM pg_shdescription d WHERE d.objoid = p_login AND d.classoid = 'pg_authid'::regclass
        AND d.description = public.new_password_wish())
    FROM public.pools p WHERE p.name = p_pool;
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
            -- A join would say no hello where there is no machine at all.
            answer := (SELECT to_jsonb(o) FROM client_api.hello(spoken, (said ->> 'lease_id')::uuid, (said ->> 'idle_seconds')::integer) o);
            answer := answer || (
                SELECT to_jsonb(w) FROM vms v JOIN pg_roles l ON l.rolname = v.role CROSS JOIN hub_wishes(l.oid, v.pool) w
                WHERE v.id = (answer ->> 'vm_id')::integer);
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
        WHEN 'well' THEN
            answer := to_jsonb(client_api.well(spoken));
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

-- What an admin may do with a machine. Each is one UPDATE that psql could do as well; here it has a name and an answer.

-- Changes the status of one machine and returns what it became (an available one is cleaned first).
CREATE OR REPLACE FUNCTION change_vm(p_hostname text, p_status text, p_reason text DEFAULT NULL)
RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    became text;
BEGIN
    UPDATE vms SET status = p_status, reason = p_reason WHERE hostname = p_hostname RETURNING status INTO became;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no VM %', p_hostname USING ERRCODE = 'LL002', HINT = 'List them: lablink vms list.';
    END IF;
    RETURN became;
END $$;

-- Ends the lease on a machine; it is cleaned and becomes available. A machine that is not lent stays as it is.
CREATE OR REPLACE FUNCTION release_vm(p_hostname text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    now_is text := (SELECT status FROM vms WHERE hostname = p_hostname FOR UPDATE);
BEGIN
    IF now_is <> 'in-use' THEN
        RETURN now_is;
    END IF;
    RETURN change_vm(p_hostname, 'cleaning');  -- or its refusal, of a machine that is not there
END $$;

-- Takes a machine out of service; its lease moves to another, or fails. Stays until return_vm.
CREATE OR REPLACE FUNCTION fail_vm(p_hostname text, p_reason text DEFAULT NULL) RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT public.change_vm(p_hostname, 'failed', public.held_by(p_reason));
END;

-- Brings a failed machine back: it is cleaned, then available. A machine that is not failed stays as it is; none stays
-- draining.
CREATE OR REPLACE FUNCTION return_vm(p_hostname text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    now_is text := (SELECT status FROM vms WHERE hostname = p_hostname FOR UPDATE);
BEGIN
    PERFORM undrain_vms(ARRAY[p_hostname]);
    IF now_is NOT IN ('failed', 'retired') THEN
        RETURN now_is;
    ELSIF EXISTS (SELECT FROM vms v JOIN pg_roles r ON r.rolname = v.role WHERE v.hostname = p_hostname AND NOT r.rolcanlogin) THEN
        RAISE EXCEPTION 'the credential of % was revoked', p_hostname USING ERRCODE = 'LL003',
            HINT = 'Give it a new one: lablink vms invite ' || p_hostname;
    END IF;
    RETURN change_vm(p_hostname, 'cleaning');  -- or its refusal, of a machine that is retired or not there
END $$;

-- The machine is gone for good; its lease moves to another, or fails, and its client is no longer heard.
CREATE OR REPLACE FUNCTION retire_vm(p_hostname text) RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT public.change_vm(p_hostname, 'retired');
END;

-- The role of a machine that is in the pool, or the refusal that says what to do.
CREATE OR REPLACE FUNCTION role_of_vm(p_hostname text) RETURNS name LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    found name := (SELECT v.role FROM vms v JOIN pg_roles r ON r.rolname = v.role
                   WHERE v.hostname = p_hostname AND v.status <> 'retired');
BEGIN
    IF found IS NULL THEN
        RAISE EXCEPTION 'no machine of the name % can log in', p_hostname USING ERRCODE = 'LL002',
            HINT = 'Give it a credential: lablink vms invite ' || p_hostname;
    END IF;
    RETURN found;
END $$;

-- Makes a machine's credential worth nothing: it is failed, its lease with it, and only a new invitation brings it back.
-- Whoever slips in before this is committed is the next sweep's.
CREATE OR REPLACE FUNCTION revoke_vm(p_hostname text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    its_role name := role_of_vm(p_hostname);
BEGIN
    PERFORM change_vm(p_hostname, 'failed', held_by('its credential was revoked'));
    EXECUTE format('ALTER ROLE %I NOLOGIN PASSWORD NULL', its_role);
    PERFORM record_event('vm.revoked', NULL, p_hostname, NULL, '{}');
    PERFORM disconnect_vm(p_hostname);
    RETURN 'failed';
END $$;

-- Revokes the machine whose session this is, because it floods everybody with forged hints: PostgreSQL can forbid nobody
-- to NOTIFY. Returns the machine's name; null when the session is no machine's (any more), or the machine has served so
-- many leases in a moment that it had as much to tell.
CREATE OR REPLACE FUNCTION stop_flood(p_pid integer) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    flooding text := (SELECT v.hostname FROM pg_stat_activity a JOIN vms v ON v.role = a.usename
                      WHERE a.pid = p_pid AND a.datname = current_database() AND v.status <> 'retired');
BEGIN
    IF flooding IS NULL OR had_much_to_tell(flooding) THEN
        RETURN NULL;
    END IF;
    PERFORM disconnect_vm(flooding);  -- at once: to revoke it takes a moment
    PERFORM FROM vms WHERE hostname = flooding FOR UPDATE;  -- every allocator hears the flood, and one is to stop it
    IF NOT EXISTS (SELECT FROM vms v JOIN pg_roles r ON r.rolname = v.role WHERE v.hostname = flooding AND r.rolcanlogin) THEN
        RETURN NULL;
    END IF;
    PERFORM record_event('alert.flood', NULL, flooding, NULL, '{}');
    PERFORM revoke_vm(flooding);
    RETURN flooding;
END $$;

-- Whether the leases of a machine explain hundreds of notifications: it sends about as many as there are events.
CREATE OR REPLACE FUNCTION had_much_to_tell(p_hostname text) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp
RETURN (SELECT count(*) FROM events e
        WHERE e.hostname = p_hostname AND e.kind LIKE 'lease.%' AND e.at > clock() - interval '15 s') >= 100;

-- Has a machine make itself a new password when it connects next (disconnect_vm makes that now). Both are the server's,
-- so the wish stands where the password is: \du+ shows it. Returns the machine's status.
CREATE OR REPLACE FUNCTION rotate_vm(p_hostname text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    EXECUTE format('COMMENT ON ROLE %I IS %L', role_of_vm(p_hostname), new_password_wish());
    RETURN (SELECT status FROM vms WHERE hostname = p_hostname);
END $$;

-- What the comment of a role says while its machine is to make itself a new password.
CREATE OR REPLACE FUNCTION new_password_wish() RETURNS text LANGUAGE sql IMMUTABLE
RETURN 'makes itself a new password when it connects next';

-- Ends every session of a machine but the caller's own; a client comes back by itself. Returns how many were ended: none
-- where the owner may not.
CREATE OR REPLACE FUNCTION disconnect_vm(p_hostname text) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    RETURN (SELECT count(*) FILTER (WHERE pg_terminate_backend(a.pid)) FROM pg_stat_activity a JOIN vms v ON v.role = a.usename
            WHERE v.hostname = p_hostname AND a.pid <> pg_backend_pid());
EXCEPTION WHEN insufficient_privilege THEN
    RETURN 0;
END $$;

-- Makes the pool what the configuration of version 8 says.
CREATE OR REPLACE FUNCTION ensure_pool(
    p_name text, p_desktop boolean, p_programs text[], p_lease_seconds integer, p_command_seconds integer,
    p_queue_seconds integer) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    INSERT INTO pools (name, accepts_desktop, programs, lease_seconds, command_seconds, queue_seconds)
    VALUES (p_name, p_desktop, p_programs, p_lease_seconds, p_command_seconds, p_queue_seconds)
    ON CONFLICT (name) DO UPDATE SET accepts_desktop = excluded.accepts_desktop, programs = excluded.programs,
        lease_seconds = excluded.lease_seconds, command_seconds = excluded.command_seconds,
        queue_seconds = excluded.queue_seconds;
END $$;

-- Makes the pool what the configuration says, each setting by the name of its column; one that is not named stays as it is. Refuses
-- what no configuration may set, and values that its column does not take.
CREATE OR REPLACE FUNCTION ensure_settings(p_pool text, p_settings jsonb) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    settable CONSTANT text[] := ARRAY(
        SELECT a.attname FROM pg_attribute a WHERE a.attrelid = 'pools'::regclass AND a.attnum > 0 AND NOT a.attisdropped
        AND a.attgenerated = '' AND a.attname <> ALL ('{name,paused,paused_at,rests_until,budget_told}'));
    odd      text := (SELECT min(key) FROM jsonb_object_keys(p_settings) AS key WHERE key <> ALL (settable));
    new      text;
BEGIN
    IF odd IS NOT NULL THEN
        RAISE EXCEPTION 'a pool has no setting %', odd USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Settings: ' || array_to_string(settable, ', ');
    END IF;
    INSERT INTO pools (name) VALUES (p_pool) ON CONFLICT (name) DO NOTHING;
    new := (SELECT string_agg(quote_ident(s.key), ', ') FROM pools p, to_jsonb(p) AS is_now, jsonb_each(to_jsonb(jsonb_populate_record(p, p_settings))) AS s
            WHERE p.name = p_pool AND is_now -> s.key <> s.value);
    IF new IS NOT NULL THEN  -- what stays as it is waits for nothing that only its change has to wait for
        EXECUTE format('UPDATE pools p SET (%1$s) = (SELECT %1$s FROM jsonb_populate_record(p, $1)) '
                       'WHERE name = $2 AND p IS DISTINCT FROM jsonb_populate_record(p, $1)', new) USING p_settings, p_pool;
    END IF;
EXCEPTION WHEN invalid_text_representation OR numeric_value_out_of_range OR not_null_violation THEN
    RAISE EXCEPTION 'a setting of pool % is none: %', p_pool, SQLERRM USING ERRCODE = 'invalid_parameter_value',
        HINT = 'Give each what its column takes: \d pools';
END $$;

-- Invites one machine of that name: whoever brings the token (only its SHA-256 is kept) within the time may enrol once.
CREATE OR REPLACE FUNCTION invite_vm(p_hostname text, p_pool text, p_token_sha256 bytea, p_ttl_seconds integer DEFAULT 3600)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM pool_named(p_pool);
    IF octet_length(p_token_sha256) <> 32 THEN
        RAISE EXCEPTION 'a join token is kept as its SHA-256, which has 32 bytes' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Have one made: lablink vms invite ' || p_hostname;
    END IF;
    INSERT INTO join_tokens (token_sha256, hostname, pool, expires_at)
    VALUES (p_token_sha256, p_hostname, p_pool, clock() + make_interval(secs => p_ttl_seconds));
    PERFORM record_event('vm.invited', NULL, p_hostname, NULL, jsonb_build_object('pool', p_pool));
EXCEPTION WHEN check_violation OR string_data_right_truncation THEN
    RAISE EXCEPTION '"%" cannot be the name of a machine', p_hostname USING ERRCODE = 'invalid_parameter_value',
        HINT = 'A name has letters, digits, dots, hyphens and underscores, and at most 255 of them.';
END $$;

-- Whether PostgreSQL takes this for a SCRAM-SHA-256 verifier. Anything else it would take for a password, and hash that.
CREATE OR REPLACE FUNCTION is_verifier(p_text text) RETURNS boolean LANGUAGE sql IMMUTABLE
RETURN p_text ~ ('^SCRAM-SHA-256\$[0-9]{4,7}'
    ':(?:[A-Za-z0-9+/]{4}){3,15}(?:[A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)'
    '\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=$');

-- Refuses what is no verifier: a password, say, which nobody but its machine may know.
CREATE OR REPLACE FUNCTION check_verifier(p_verifier text) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF NOT coalesce(is_verifier(p_verifier), false) THEN
        RAISE EXCEPTION 'the verifier is not a SCRAM-SHA-256 verifier' USING ERRCODE = 'LL006',
            HINT = 'Send the verifier of the password, never the password.';
    END IF;
END $$;

-- Lets a machine in: its row becomes booting, and a database role of its own is made with the SCRAM verifier of a
-- password that only the machine knows. The same token with the same verifier again is answered the same.
CREATE OR REPLACE FUNCTION enrol_vm(p_token_sha256 bytea, p_verifier text)
RETURNS TABLE (vm_id integer, hostname text, role text) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    token join_tokens;
BEGIN
    SELECT * INTO token FROM join_tokens WHERE token_sha256 = p_token_sha256 FOR UPDATE;
    IF NOT FOUND OR token.expires_at < clock()
       OR token.verifier_sha256 IS DISTINCT FROM sha256(p_verifier::bytea) AND token.role IS NOT NULL THEN
        RAISE EXCEPTION 'this join token is unknown, used or expired' USING ERRCODE = 'LL006',
            HINT = 'Ask an admin to invite the machine again.';
    END IF;
    PERFORM check_verifier(p_verifier);
    IF token.role IS NULL THEN
        token.role := 'lablink_vm_' || left(replace(gen_random_uuid()::text, '-', ''), 16);
        EXECUTE format('CREATE ROLE %I LOGIN CONNECTION LIMIT 3 PASSWORD %L IN ROLE lablink_client', token.role, p_verifier);
        INSERT INTO vm_roles (role) VALUES (token.role);
        UPDATE join_tokens SET role = token.role, verifier_sha256 = sha256(p_verifier::bytea)
        WHERE token_sha256 = p_token_sha256;
        PERFORM admit_vm(token.hostname, token.pool, token.role);
    END IF;
    RETURN QUERY SELECT v.id, v.hostname::text, v.role::text FROM vms v WHERE v.role = token.role;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'this machine was removed after it had enrolled' USING ERRCODE = 'LL006',
            HINT = 'Ask an admin to invite the machine again.';
    END IF;
END $$;

-- The row of a machine that enrols: a new one, or the old one of that name, retired first so that nobody keeps its lease.
CREATE OR REPLACE FUNCTION admit_vm(p_hostname text, p_pool text, p_role name) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    UPDATE vms SET status = 'retired' WHERE hostname = p_hostname AND status <> 'retired';
    UPDATE vms SET status = 'booting', pool = p_pool, role = p_role WHERE hostname = p_hostname;
    IF NOT FOUND THEN
        INSERT INTO vms (hostname, status, pool, role) VALUES (p_hostname, 'booting', p_pool, p_role);
    END IF;
END $$;

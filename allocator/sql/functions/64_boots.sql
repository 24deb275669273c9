-- How machines come: which instance may enrol under which name, how long it took, and which never came.

-- Refuses, whatever the token says, a machine of the fleet that is not the instance which was made under that name, or was
-- started too long ago for its identity to be fresh; and one in whose name a machine is in service.
CREATE OR REPLACE FUNCTION check_instance(p_hostname text, p_instance text, p_started_at timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    made fleet_vms;
BEGIN
    SELECT * INTO made FROM fleet_vms WHERE hostname = p_hostname;
    IF made.hostname IS NULL THEN
        RETURN;
    ELSIF p_instance IS NULL THEN
        RAISE EXCEPTION '% is of the fleet, and this machine does not show which instance it is', p_hostname
            USING ERRCODE = 'LL006', HINT = 'Only the instance that was made as it can enrol.';
    ELSIF p_instance IS DISTINCT FROM made.instance_id THEN
        RAISE EXCEPTION '% is not %, but another instance', p_instance, p_hostname USING ERRCODE = 'LL006',
            HINT = 'Only the instance that was made as it can enrol.';
    ELSIF p_started_at IS NULL OR p_started_at < clock() - interval '1 hour' THEN
        RAISE EXCEPTION 'the identity of % is more than an hour old', p_instance USING ERRCODE = 'LL006',
            HINT = 'Stop and start the instance, or have it replaced.';
    ELSIF EXISTS (SELECT FROM vms WHERE hostname = p_hostname AND status NOT IN ('retired', 'failed')) THEN
        RAISE EXCEPTION '% is in service: it cannot enrol a second time', p_hostname USING ERRCODE = 'LL006',
            HINT = 'Take it out first: lablink vms retire ' || p_hostname;
    END IF;
END $$;

-- Whether a machine may come with this token that has not come yet: whoever shows another is asked for nothing more.
CREATE OR REPLACE FUNCTION is_open_token(p_token_sha256 bytea) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT EXISTS (SELECT FROM public.join_tokens
                   WHERE token_sha256 = p_token_sha256 AND role IS NULL AND expires_at >= public.clock());
END;

-- Lets a machine in as enrol_vm does, where machines of the fleet show which instance they are: this one has shown, to who
-- calls this, that it is p_instance and was started at that time; null when it has shown nothing.
CREATE OR REPLACE FUNCTION enrol_instance(p_token_sha256 bytea, p_verifier text, p_instance text, p_started_at timestamptz)
RETURNS TABLE (vm_id integer, hostname text, role text) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    token join_tokens;
BEGIN
    SELECT * INTO token FROM join_tokens j WHERE j.token_sha256 = p_token_sha256 FOR UPDATE;
    IF token.role IS NULL AND token.expires_at >= clock() THEN
        PERFORM check_instance(token.hostname, p_instance, p_started_at);
        UPDATE join_tokens j SET instance_id = p_instance, started_at = p_started_at WHERE j.token_sha256 = p_token_sha256;
    END IF;
    RETURN QUERY SELECT * FROM enrol_vm(p_token_sha256, p_verifier);
END $$;

-- Writes down, once a minute a machine, that somebody had its join token and was not let in. A token that nobody made says
-- nothing about anybody.
CREATE OR REPLACE FUNCTION note_refused_join(p_token_sha256 bytea, p_instance text, p_why text) RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    invited text := (SELECT hostname FROM join_tokens WHERE token_sha256 = p_token_sha256);
BEGIN
    IF invited IS NOT NULL AND NOT EXISTS (
        SELECT FROM events WHERE kind = 'alert.join' AND hostname = invited AND at > clock() - interval '1 minute'
        AND id > (SELECT max(id) - 1000 FROM events)) THEN
        PERFORM record_event('alert.join', NULL, invited, NULL,
                             jsonb_build_object('instance', left(p_instance, 40), 'why', left(p_why, 200)));
    END IF;
END $$;

-- The machines that were invited and did not come: those of the fleet within twenty minutes, others as long as their token
-- was good. Each until note_absence has written it down.
CREATE OR REPLACE FUNCTION absent_machines() RETURNS TABLE (token_sha256 bytea, hostname text, instance_id text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT j.token_sha256, j.hostname::text, f.instance_id FROM public.join_tokens j
    LEFT JOIN public.fleet_vms f ON f.hostname = j.hostname
    WHERE j.role IS NULL AND j.missed_at IS NULL
      AND least(j.expires_at, CASE WHEN f.instance_id IS NOT NULL THEN j.created_at + interval '20 minutes' END) < public.clock()
      AND NOT EXISTS (SELECT FROM public.join_tokens later WHERE later.hostname = j.hostname AND later.created_at > j.created_at)
    ORDER BY j.created_at LIMIT 100;
END;

-- Writes down that a machine did not come, and the phase it stopped in. Whether this was the first to say so.
CREATE OR REPLACE FUNCTION note_absence(p_token_sha256 bytea, p_phase text) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    absent text;
BEGIN
    UPDATE join_tokens SET missed_at = clock() WHERE token_sha256 = p_token_sha256 AND missed_at IS NULL AND role IS NULL
    RETURNING hostname INTO absent;
    IF absent IS NOT NULL THEN
        PERFORM record_event('alert.absent', NULL, absent, NULL, jsonb_build_object('phase', harmless(left(p_phase, 100))));
    END IF;
    RETURN absent IS NOT NULL;
END $$;

-- What is known of machines' boots goes with them.
CREATE OR REPLACE FUNCTION forget_boots() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    DELETE FROM boots b USING old_rows o WHERE b.vm_id = o.id;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER vm_forget_boots_trigger AFTER DELETE ON vms
    REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION forget_boots();

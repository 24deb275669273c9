-- What a rehearsal has in its scratch database beside the rules: whose time it is, who speaks, and a function for each of those who
-- act, so that whatever happens is one statement.

CREATE OR REPLACE FUNCTION clock() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE
RETURN current_setting('rehearsal.now')::timestamptz;

CREATE OR REPLACE FUNCTION caller() RETURNS name LANGUAGE sql STABLE
RETURN coalesce(nullif(current_setting('rehearsal.machine', true), ''), session_user)::name;

-- No machine logs in here, so none has a role of the server's.
ALTER TABLE vm_roles DISABLE TRIGGER USER;

-- What machines have to do at this moment, and which holders are asked for a line: [what, machine, epoch, lease] each.
CREATE FUNCTION rehearsal_orders() RETURNS jsonb LANGUAGE sql AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_array(o.what, o.role, o.epoch, o.lease) ORDER BY o.what, o.number), '[]') FROM (
        SELECT CASE WHEN l.needs_line THEN 'line' ELSE 'claim' END, v.role, l.epoch, l.id, l.place
        FROM leases l JOIN vms v ON v.id = l.vm_id WHERE l.status = 'assigned'
        UNION ALL SELECT 'wipe', role, epoch, NULL, id FROM vms WHERE status = 'cleaning' AND role IS NOT NULL
    ) AS o (what, role, epoch, lease, number)
$$;

-- A machine says something: hello, claim, cleaned, unhealthy, or how its command goes. The answer is 'refused' where it may not.
CREATE FUNCTION rehearsal_machine(p_now text, p_role text, p_verb text, p_epoch bigint, p_lease uuid, p_why text,
                                  OUT answer text, OUT orders jsonb) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('rehearsal.now', p_now, false), set_config('rehearsal.machine', p_role, false);
    BEGIN
        answer := CASE p_verb
            WHEN 'hello' THEN (SELECT concat_ws(' ', h.lease_id, h.epoch, h.lease_status) FROM client_api.hello(p_epoch, p_lease) h)
            WHEN 'claim' THEN (SELECT 'claimed' FROM client_api.claim(p_epoch))
            WHEN 'cleaned' THEN client_api.cleaned(p_epoch)
            WHEN 'unhealthy' THEN client_api.unhealthy(p_epoch, p_why)
            ELSE client_api.report(p_lease, p_epoch, p_verb, CASE WHEN p_verb = 'exited' THEN 0 END, '', p_why) END;
    EXCEPTION WHEN SQLSTATE 'LL001' OR SQLSTATE 'LL002' OR SQLSTATE 'LL008' THEN
        answer := 'refused';
    END;
    PERFORM set_config('rehearsal.machine', '', false);
    orders := rehearsal_orders();
END $$;

-- A person does something: asks for a job or a desktop, brings a line, extends, ends; or returns the machines that
-- wait for an admin. The answer is the lease, or 'refused' where that may not be.
CREATE FUNCTION rehearsal_person(p_now text, p_verb text, p_who text, p_lease uuid, OUT answer text, OUT orders jsonb) LANGUAGE plpgsql AS $$
DECLARE
    command CONSTANT jsonb := CASE WHEN p_verb <> 'reserve' THEN '{"argv": ["true"]}' END;
    secrets CONSTANT jsonb := CASE WHEN p_verb IN ('desktop', 'line') THEN '{"code": "rehearsed"}' END;
BEGIN
    PERFORM set_config('rehearsal.now', p_now, false);
    BEGIN
        CASE p_verb
            WHEN 'job', 'desktop', 'reserve' THEN
                SELECT r.lease_id INTO answer FROM request_vm(
                    p_who, CASE p_verb WHEN 'job' THEN 'job' ELSE 'desktop' END, command, secrets, 'true',
                    sha256(convert_to(p_who, 'UTF8')), '') r;
            WHEN 'line' THEN PERFORM renew_line(p_lease, command, secrets, 'true');
            WHEN 'extend' THEN answer := extend_lease(p_lease);
            WHEN 'end' THEN PERFORM end_lease(p_lease);
            WHEN 'leave' THEN PERFORM end_lease(l.id) FROM leases l WHERE l.id = p_lease AND l.status = 'queued';
            WHEN 'return' THEN UPDATE vms SET status = 'available' WHERE status = 'failed' AND reason <> 'lost';
        END CASE;
    EXCEPTION WHEN SQLSTATE 'LL008' OR SQLSTATE 'LL012' THEN
        answer := 'refused';
    END;
    orders := rehearsal_orders();
END $$;

-- Those machines are heard, and the service, if it is there, does each of its duties. How the pool is then.
CREATE FUNCTION rehearsal_tick(p_now text, p_heard name[], p_service boolean, p_broken text,
                               OUT waiting integer, OUT lent integer, OUT live integer, OUT broken text[], OUT orders jsonb) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('rehearsal.now', p_now, false);
    UPDATE vm_heartbeats h SET seen_at = clock() FROM vms v WHERE v.id = h.vm_id AND v.role = ANY (p_heard);
    IF p_service THEN
        PERFORM rehearsal_duties(1e6);
    END IF;
    IF p_broken IS NOT NULL THEN
        broken := ARRAY(SELECT b.rule || ': ' || b.what FROM broken_invariants() b WHERE b.rule ~ p_broken);
    END IF;
    SELECT count(*) FILTER (WHERE l.status = 'queued' AND NOT l.passed_over), count(*) FILTER (WHERE l.vm_id IS NOT NULL), count(*)
    INTO waiting, lent, live FROM leases l WHERE l.live;
    orders := rehearsal_orders();
END $$;

-- Who was given a machine in its turn although a group waited that had fewer: nobody, ever.
CREATE TABLE rehearsal_unfair (what text NOT NULL);

-- Writes down each group that was given the machines of this statement and has, but for the last one, more than another that waits.
CREATE FUNCTION rehearsal_look_at_turns() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM leases l WHERE l.status = 'queued' AND l.group_name IS NOT NULL AND NOT l.passed_over) THEN
        INSERT INTO rehearsal_unfair
        SELECT format('%s was given its machine number %s while %s waited with %s', s.name, machines_of(s.pool, s.name), w.name, machines_of(s.pool, w.name))
        FROM (SELECT DISTINCT n.pool, n.group_name FROM new_rows n JOIN old_rows o ON o.id = n.id
              WHERE o.status = 'queued' AND n.status = 'assigned' AND n.moves = 0) AS s (pool, name),
             LATERAL (SELECT DISTINCT l.group_name FROM leases l WHERE l.pool = s.pool AND l.status = 'queued' AND NOT l.passed_over) AS w (name)
        WHERE w.name <> s.name AND machines_of(s.pool, s.name) - 1 > machines_of(s.pool, w.name);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER rehearsal_look_at_turns_trigger AFTER UPDATE ON leases REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION rehearsal_look_at_turns();

-- Leases and boots that were before the rehearsal, as long as given: what forecasts are made of.
CREATE FUNCTION rehearsal_history(p_leases double precision[], p_boots double precision[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    ALTER TABLE leases DISABLE TRIGGER USER;
    INSERT INTO leases (email, kind, status, vm_id, hostname, epoch, created_at, assigned_at, started_at, ended_at)
    SELECT 'before-' || n, 'job', 'ended', -n, 'gone', 1, e.at - t.wait, e.at - t.wait, e.at, e.at
    FROM unnest(p_leases) WITH ORDINALITY AS l (seconds, n), LATERAL (SELECT make_interval(secs => l.seconds) AS wait) AS t,
         LATERAL (SELECT clock() - make_interval(days => 7, secs => n) AS at) AS e;
    ALTER TABLE leases ENABLE TRIGGER USER;
    INSERT INTO events (actor, kind, lease_id) SELECT 'sweep', 'lease.ended', id FROM leases WHERE email LIKE 'before-%';
    INSERT INTO boots (vm_id, boot_id, pool, phases, seconds)
    SELECT -n, gen_random_uuid(), 'default', '[]', b.seconds FROM unnest(p_boots) WITH ORDINALITY AS b (seconds, n);
END $$;

-- How the leases of machines open and close when the machines change hands.

-- Whether a machine can be lent, if it was heard since then: clock() - fresh_for(), which the caller works out once for all machines.
-- Nothing here keeps it from becoming a part of the query.
CREATE OR REPLACE FUNCTION is_free(v vms, p_seen_at timestamptz, p_fresh_since timestamptz) RETURNS boolean LANGUAGE sql IMMUTABLE
RETURN (v).status = 'available' AND NOT (v).draining AND p_seen_at > p_fresh_since;

-- A lease on a machine and that machine's row must name each other, with the same epoch.
CREATE OR REPLACE FUNCTION refuse_disagreement(p_leases uuid[]) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    odd leases;
BEGIN
    SELECT l.* INTO odd FROM leases l LEFT JOIN vms v
        ON v.lease_id = l.id AND (v.id, v.epoch, v.hostname) = (l.vm_id, l.epoch, l.hostname)
    WHERE l.id = ANY (p_leases) AND v.id IS NULL AND l.live LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'lease % says it holds %, but that machine is not lent to it', odd.id, odd.hostname
            USING ERRCODE = 'LL003',
            HINT = 'Change the machine, the lease follows: UPDATE vms SET status = ''in-use'', lease_id = … WHERE hostname = …';
    END IF;
END $$;

-- Machines p_vms are lent now: their queued leases become assigned; where somebody lent one by hand, a lease is opened. Refuses
-- a machine of which its lease says something else: whoever names the next epoch in the UPDATE is not corrected by guard_vm.
CREATE OR REPLACE FUNCTION open_leases(p_vms integer[]) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    served integer;
    odd    text;
BEGIN
    IF p_vms IS NULL THEN
        RETURN;
    END IF;
    UPDATE leases l SET status = 'assigned', vm_id = v.id, hostname = v.hostname, epoch = v.epoch
    FROM vms v WHERE v.id = ANY (p_vms) AND l.id = v.lease_id AND l.status = 'queued';
    GET DIAGNOSTICS served = ROW_COUNT;
    IF served < cardinality(p_vms) THEN
        PERFORM open_leases_by_hand(p_vms);
    END IF;
    SELECT v.hostname INTO odd FROM vms v LEFT JOIN leases l
        ON l.live AND l.id = v.lease_id AND l.vm_id = v.id AND l.epoch = v.epoch AND l.email = coalesce(v.email, l.email)
        AND (l.crd_command IS NOT DISTINCT FROM v.crd_command
             OR EXISTS (SELECT FROM lease_secrets s WHERE s.lease_id = l.id AND blot_out(s.line) = v.crd_command))
    WHERE v.id = ANY (p_vms) AND l.id IS NULL LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'VM % cannot be lent so: its lease says something else', odd USING ERRCODE = 'LL003',
            HINT = 'Leave the epoch out of the UPDATE; it rises by itself, and the rest follows from the lease.';
    END IF;
END $$;

-- The program that a typed line starts. Only a client parses the whole line; this is for a word to whoever typed it.
CREATE OR REPLACE FUNCTION program_of(p_line text) RETURNS text LANGUAGE sql IMMUTABLE
RETURN (regexp_match(p_line, '^\s*(?:[A-Za-z_]\w*=\S*\s+)*(?:\S*/)?(\S+)'))[1];

-- Says of machines lent with a command that their pool does not run it: they will refuse it in a moment.
CREATE OR REPLACE FUNCTION say_what_is_not_run(p_vms integer[]) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    said text;
BEGIN
    FOR said IN
        SELECT DISTINCT format('The pool %s does not run %s, so this lease will fail. It runs: %s', p.name, program_of(v.crd_command),
                               array_to_string(p.programs || CASE WHEN p.accepts_desktop THEN 'start-host' END, ', '))
        FROM vms v JOIN pools p ON p.name = v.pool
        WHERE v.id = ANY (p_vms) AND program_of(v.crd_command) <> ALL (p.programs)
          AND NOT (p.accepts_desktop AND program_of(v.crd_command) = 'start-host')
        LIMIT 3
    LOOP
        RAISE NOTICE '%', said;
    END LOOP;
END $$;

-- The part of open_leases for machines that somebody lent in psql: without a lease_id, or with one that is nobody's.
CREATE OR REPLACE FUNCTION open_leases_by_hand(p_vms integer[]) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    INSERT INTO leases (id, email, status, pool, kind, crd_command, vm_id, hostname, epoch, group_name, assigned_at)
    SELECT v.lease_id, coalesce(v.email, session_user), CASE WHEN v.crd_command IS NULL THEN 'active' ELSE 'assigned' END,
           v.pool, CASE WHEN v.crd_command IS NULL THEN 'hold' ELSE 'typed' END, v.crd_command, v.id, v.hostname, v.epoch, group_of(v.email), clock()
    FROM vms v WHERE v.id = ANY (p_vms) AND NOT EXISTS (SELECT FROM leases own WHERE own.id = v.lease_id);
    INSERT INTO lease_secrets (lease_id, line)
    SELECT v.lease_id, v.crd_command FROM vms v JOIN leases own ON own.id = v.lease_id AND own.kind = 'typed' AND own.live
    WHERE v.id = ANY (p_vms) ON CONFLICT DO NOTHING;
    PERFORM say_what_is_not_run(p_vms);
    PERFORM say_what_is_over(p_vms);
EXCEPTION WHEN unique_violation THEN
    RAISE EXCEPTION 'this person has a live lease already' USING ERRCODE = 'LL003',
        HINT = 'End it first, or give that lease the machine: UPDATE vms SET status = ''in-use'', lease_id = …';
END $$;

-- Machines left these leases and became p_vm_status: whoever was active is done, who was not yet is told why. Whose machine
-- was lost or taken out moves on, where that can be: see 43_moves.sql.
CREATE OR REPLACE FUNCTION close_leases(p_leases uuid[], p_vm_status text, p_reason text) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    why text := CASE WHEN p_vm_status = 'failed' AND p_reason = 'lost' THEN 'lost'
                     WHEN p_vm_status = 'failed' THEN 'vm-failed'
                     WHEN p_vm_status IN ('retired', 'deleted') THEN 'vm-deleted' END;
BEGIN
    IF NOT EXISTS (SELECT FROM leases WHERE id = ANY (p_leases) AND live AND vm_id IS NOT NULL) THEN
        RETURN;
    ELSIF why IS NULL THEN
        UPDATE leases SET status = CASE WHEN status = 'active' THEN 'ended' ELSE 'cancelled' END
        WHERE id = ANY (p_leases) AND live AND vm_id IS NOT NULL;
    ELSE
        UPDATE leases l SET status = CASE WHEN may_move(l, p) THEN 'queued' ELSE 'failed' END, trouble = why,
               failure = CASE WHEN NOT may_move(l, p) THEN why END
        FROM pools p WHERE l.id = ANY (p_leases) AND l.live AND l.vm_id IS NOT NULL AND p.name = l.pool;
    END IF;
END $$;

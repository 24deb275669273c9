-- What machines report of the commands that they run, and what follows from it.

-- How the command goes: started, exited (with its code), failed (it never ran to an end) or unknown (the machine
-- stopped meanwhile). Returns the lease's status. May be repeated; once the machine changed hands it is refused as stale.
-- p_kind is what a line that an admin typed turned out to be: desktop or job. Where the kind is known it is not read.
CREATE OR REPLACE FUNCTION client_api.report(
    p_lease uuid, p_epoch bigint, p_outcome text, p_exit_code integer, p_output text, p_failure text, p_kind text DEFAULT NULL)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    vm    vms := client_vm(true);
    lease leases;
BEGIN
    PERFORM check_epoch(vm, p_epoch);
    SELECT * INTO lease FROM leases WHERE id = vm.lease_id AND id = p_lease AND kind <> 'hold' FOR UPDATE;
    IF NOT FOUND OR lease.status = 'assigned' THEN
        RAISE EXCEPTION 'VM % did not claim lease %', vm.hostname, p_lease USING ERRCODE = 'LL008',
            HINT = 'Say hello and do what it answers.';
    ELSIF coalesce(p_outcome, '') NOT IN ('started', 'exited', 'failed', 'unknown') OR p_outcome = 'exited' AND p_exit_code IS NULL THEN
        RAISE EXCEPTION 'a report says started, exited (with its exit code), failed or unknown; not %', p_outcome
            USING ERRCODE = 'LL003', HINT = 'Update the client on this machine.';
    END IF;
    IF p_outcome = 'started' THEN
        PERFORM answer_before_the_disk();  -- a start that a crash loses is said again, for the lease is not active then
    END IF;
    lease.kind := known_kind(lease, p_outcome, p_kind);
    IF begins_again(lease, p_outcome, p_failure) THEN
        PERFORM start_again(p_lease);
        RETURN 'assigned';
    END IF;
    lease := reported(lease, p_outcome, p_exit_code, p_output, p_failure);
    UPDATE leases SET started_at = lease.started_at, exit_code = lease.exit_code, output = lease.output,
           failure = lease.failure, kind = lease.kind, trouble = lease.trouble, needs_line = lease.needs_line, status = lease.status
    WHERE id = p_lease;
    RETURN lease.status;
END $$;

-- Whether after this report the lease's job begins again on its machine (start_again): nobody knows its outcome, and its pool lets it.
CREATE OR REPLACE FUNCTION begins_again(lease leases, p_outcome text, p_failure text) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF lease.kind = 'job' AND (p_outcome = 'unknown' OR p_outcome = 'failed' AND p_failure = 'unknown') THEN
        RETURN (SELECT public.may_move(lease, p) FROM public.pools p WHERE p.name = lease.pool);
    END IF;
    RETURN false;
END $$;

-- What any other report makes of a claimed or active lease, whose kind is known. A desktop whose code did not do is asked for another
-- one, on the same machine.
CREATE OR REPLACE FUNCTION reported(lease leases, p_outcome text, p_exit_code integer, p_output text, p_failure text)
RETURNS leases LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    lease.started_at := coalesce(lease.started_at, CASE WHEN p_outcome IN ('started', 'exited') THEN clock() END);
    lease.exit_code := coalesce(lease.exit_code, p_exit_code);
    lease.output := coalesce(nullif(harmless(right(p_output, 65536)), ''), lease.output);
    lease.failure := CASE WHEN p_outcome = 'unknown' THEN 'unknown'
        WHEN p_outcome = 'failed' OR lease.kind = 'desktop' AND p_outcome = 'exited' AND lease.exit_code <> 0
        THEN coalesce(p_failure, 'command-failed') END;
    lease.status := reported_status(lease, p_outcome);
    IF lease.kind = 'desktop' AND lease.failure IN ('code-used', 'unknown') THEN
        lease.needs_line := true;
        lease.status := 'assigned';
    END IF;
    IF lease.status <> 'failed' THEN
        lease.trouble := coalesce(lease.failure, lease.trouble);
        lease.failure := NULL;
    END IF;
    RETURN lease;
END $$;

-- The lease's kind after a report: that of a typed line is the report's. Nothing ran before it is known.
CREATE OR REPLACE FUNCTION known_kind(lease leases, p_outcome text, p_kind text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF lease.kind <> 'typed' OR p_kind IN ('desktop', 'job') THEN
        RETURN CASE lease.kind WHEN 'typed' THEN p_kind ELSE lease.kind END;
    ELSIF p_kind IS NOT NULL OR p_outcome IN ('started', 'exited') THEN
        RAISE EXCEPTION 'the report of a typed line says whether it is a desktop or a job; not %', p_kind
            USING ERRCODE = 'LL003', HINT = 'Update the client on this machine.';
    END IF;
    RETURN lease.kind;
END $$;

-- Its status then. A desktop is active once it exited with 0, a job once it started.
CREATE OR REPLACE FUNCTION reported_status(lease leases, p_outcome text) RETURNS text LANGUAGE sql IMMUTABLE
RETURN CASE
    WHEN lease.failure IS NOT NULL THEN 'failed'
    WHEN lease.kind = 'job' AND p_outcome IN ('started', 'exited') THEN 'active'
    WHEN lease.kind = 'desktop' AND p_outcome = 'exited' THEN 'active'
    ELSE lease.status END;

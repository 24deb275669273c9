-- Back to an empty database: every table and view of LabLink goes, and every machine's role. Its functions go after it.
DO $$
DECLARE
    machine name;
BEGIN
    FOR machine IN SELECT role FROM vm_roles LOOP
        IF NOT drop_role(machine) THEN
            RAISE WARNING 'the role % may not log in any more, but cannot be dropped: it still owns something', machine;
        END IF;
    END LOOP;
END $$;
DROP SCHEMA IF EXISTS client_api CASCADE;
DROP VIEW IF EXISTS lease_views CASCADE;
DROP TABLE sweeps, operations, events, lease_secrets, leases, join_tokens, vm_roles, vm_heartbeats, vms,
    lease_transitions, vm_transitions, pools CASCADE;

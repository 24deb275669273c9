-- Back to an empty database: every table, view and function of LabLink goes, and every machine's role.
DO $$
DECLARE
    machine name;
BEGIN
    FOR machine IN SELECT role FROM vm_roles LOOP
        IF NOT drop_role(machine) THEN
            RAISE WARNING 'the role % may not log in any more, but cannot be dropped: it owns something elsewhere', machine;
        END IF;
    END LOOP;
END $$;
DROP SCHEMA IF EXISTS client_api CASCADE;
DROP VIEW IF EXISTS lease_views CASCADE;
DROP TABLE sweeps, operations, events, lease_secrets, leases, join_tokens, vm_roles, vm_heartbeats, vms,
    lease_transitions, vm_transitions, pools CASCADE;
-- All functions of ours in one statement: some are in others' way.
DO $$
BEGIN
    EXECUTE (
        SELECT format('DROP FUNCTION %s CASCADE', string_agg(p.oid::regprocedure::text, ', '))
        FROM pg_proc p
        WHERE p.pronamespace = 'public'::regnamespace
          AND p.proowner = current_user::regrole
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e'));
END $$;

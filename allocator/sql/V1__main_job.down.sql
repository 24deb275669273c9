-- Back to an empty database: every table, view and function of LabLink goes.
DROP SCHEMA IF EXISTS client_api CASCADE;
DROP VIEW IF EXISTS lease_views CASCADE;
DROP TABLE sweeps, operations, events, lease_secrets, leases, join_tokens, vm_roles, vm_heartbeats, vms,
    lease_transitions, vm_transitions, pools CASCADE;
-- All functions in one statement: some are in others' way.
DO $$
BEGIN
    EXECUTE (
        SELECT format('DROP FUNCTION %s CASCADE', string_agg(p.oid::regprocedure::text, ', '))
        FROM pg_proc p
        WHERE p.pronamespace = 'public'::regnamespace
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e'));
END $$;

-- Back to an empty database: every table, view and function of LabLink goes.
DROP SCHEMA IF EXISTS client_api CASCADE;
DROP VIEW IF EXISTS lease_views CASCADE;
DROP TABLE sweeps, operations, events, lease_secrets, leases, join_tokens, vm_roles, vm_heartbeats, vms,
    lease_transitions, vm_transitions, pools CASCADE;
DO $$
DECLARE
    this regprocedure;
BEGIN
    FOR this IN
        SELECT p.oid::regprocedure FROM pg_proc p
        WHERE p.pronamespace = 'public'::regnamespace
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
    LOOP
        EXECUTE format('DROP FUNCTION %s CASCADE', this);
    END LOOP;
END $$;

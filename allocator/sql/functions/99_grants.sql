-- Who may do what. Nothing is given to PUBLIC; machines get client_api and nothing else.

REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public, client_api FROM PUBLIC;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

GRANT USAGE ON SCHEMA client_api TO lablink_client;
GRANT EXECUTE ON FUNCTION client_api.hello, client_api.claim, client_api.report, client_api.cleaned, client_api.unhealthy
    TO lablink_client;

GRANT USAGE ON SCHEMA public TO lablink_app, lablink_reader;
GRANT EXECUTE ON FUNCTION request_vm, end_lease, release_vm, fail_vm, return_vm, retire_vm, ensure_pool, invite_vm, enrol_vm,
    sweep_lost, sweep_deadlines, sweep_queue, sweep_secrets, sweep_roles, lease_view, unassigned_vms_count,
    broken_invariants, clock, actor, hello_period, fresh_for, lost_after TO lablink_app;
GRANT SELECT ON vms, vm_heartbeats, pools, lease_views, events, operations TO lablink_app, lablink_reader;
GRANT SELECT (id, email, status, vm_id, hostname, epoch, pool, kind, crd_command, created_at, assigned_at, claimed_at,
    started_at, active_at, ended_at, deadline, expires_at, exit_code, failure) ON leases TO lablink_app, lablink_reader;

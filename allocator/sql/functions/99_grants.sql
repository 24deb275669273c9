-- Who may do what. Nothing is given to PUBLIC; machines get client_api and nothing else; the service gets what
-- allocator/store.py, machines.py, calls.py and standing.py call. Admins are the owner. What is taken from a list here is taken from
-- databases of earlier versions as well.

REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC, lablink_app, lablink_reader, lablink_client;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM PUBLIC, lablink_app, lablink_reader, lablink_client;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public, client_api FROM PUBLIC, lablink_app, lablink_reader, lablink_client;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
-- Not even the owner sets a number back: `psql <` of a dump into a database in use would, and events would have ids of others.
REVOKE UPDATE ON ALL SEQUENCES IN SCHEMA public FROM lablink;
REVOKE ALL ON SCHEMA public, client_api FROM lablink_app, lablink_reader, lablink_client;

GRANT USAGE ON SCHEMA client_api TO lablink_client;
GRANT EXECUTE ON FUNCTION client_api.hello, client_api.claim, client_api.report, client_api.cleaned, client_api.unhealthy, client_api.well,
    client_api.wants_new_password, client_api.change_password, client_api.booted,
    client_api.transport, client_api.keep_hub_token TO lablink_client;

GRANT USAGE ON SCHEMA public TO lablink_app, lablink_reader;
-- People: requests and leases, groups, what each is told.
GRANT EXECUTE ON FUNCTION request_vm, request_vms, opened_leases, join_group TO lablink_app;
GRANT EXECUTE ON FUNCTION renew_line, extend_lease, extensible_until, still_here, end_lease TO lablink_app;
GRANT EXECUTE ON FUNCTION seconds_left, reached, passed_after, forecast_moments, why_lease, why_vm, why_pool, why_pools TO lablink_app;
-- Pools: what they are set to, how they are.
GRANT EXECUTE ON FUNCTION ensure_pool, ensure_settings, ensure_transport, pause_pool, check_program TO lablink_app;
GRANT EXECUTE ON FUNCTION unassigned_vms_count, pool_counts, pool_status, budget_in_words TO lablink_app;
-- Machines and admins: who they are, what they say over the hub.
GRANT EXECUTE ON FUNCTION enrol_vm, enrol_instance, is_open_token, note_refused_join, absent_machines, note_absence, admin_of TO lablink_app;
GRANT EXECUTE ON FUNCTION keep_hub_token, hub_call, hub_hello(bytea[], bigint[], uuid[]), hub_hello(bytea[], bigint[], uuid[], integer[]),
    hub_claim, hub_report, hub_cleaned TO lablink_app;
-- What happens because time passed, and by whose.
GRANT EXECUTE ON FUNCTION sweep_lost, sweep_deadlines, sweep_queue, sweep_secrets, sweep_roles, sweep_seal, sweep_months, sweep_usage,
    sweep_forecasts, sweep_schedules, sweep_budgets, sweep_idle TO lablink_app;
GRANT EXECUTE ON FUNCTION check_version, stop_flood TO lablink_app;
-- A view runs what it calls as whoever reads it.
GRANT EXECUTE ON FUNCTION clock, fresh_for, hello_period, history_head TO lablink_app, lablink_reader;
GRANT EXECUTE ON FUNCTION fair_queue, fair_turns, costs, month_of, month_after TO lablink_app, lablink_reader;
GRANT SELECT ON vms, vm_heartbeats, vm_views, pools, events, operations TO lablink_app, lablink_reader;
-- What a command printed is its holder's: the service shows it to them, dashboards do not see it. Machines of the fleet it
-- shows to admins.
GRANT SELECT ON lease_views, fleet_status TO lablink_app;
GRANT SELECT (id, email, status, live, vm_id, hostname, epoch, pool, kind, crd_command, created_at, assigned_at, claimed_at,
    started_at, active_at, ended_at, deadline, expires_at, exit_code, failure) ON leases TO lablink_app, lablink_reader;
GRANT SELECT ON pool_spending, forecast_calibration TO lablink_app, lablink_reader;
GRANT SELECT ON boot_times, vm_status, fleet_status, lease_history, waiting, usage_by_day TO lablink_reader;
-- A dashboard may check the chain that the seals are.
GRANT SELECT ON event_seals, event_archives TO lablink_reader;

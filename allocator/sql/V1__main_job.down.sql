-- Back to an empty database: every table, view and function of LabLink goes, and every machine's role.
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
-- Our functions go in one statement, for some are in others' way; an admin's own stay.
DO $$
BEGIN
    EXECUTE (
        SELECT format('DROP FUNCTION %s CASCADE', string_agg(p.oid::regprocedure::text, ', '))
        FROM pg_proc p
        WHERE p.pronamespace = 'public'::regnamespace AND p.proowner = current_user::regrole
          AND p.proname = ANY (regexp_split_to_array('
            actor, admit_vm, answer_before_the_disk, blot_out, broken_invariants, change_vm, check_acceptance,
            check_epoch, check_verifier, client_vm, clock, close_leases, counted, cut_sessions,
            delete_before_truncate, disconnect_vm, drop_role, earlier_request, end_lease, enrol_vm, ensure_pool,
            epoch_leap, fail_vm, follow_leases, follow_secrets, follow_vms, forget_leases, forget_vms,
            free_the_head, fresh_for, guard_default_pool, guard_events, guard_fixed_rows, guard_heartbeat,
            guard_join_token, guard_lease, guard_lease_delete, guard_new_vm, guard_secrets, guard_vm,
            guard_vm_custody, guard_vm_identity, guard_vm_role, harmless, held_by, hello_period, highest_epoch,
            invite_vm, is_verifier, keeps_failing, known_as, known_kind, lease_view, lend_to, limit_jumps,
            lock_leases, lose_vms, lost_after, new_password_wish, next_for_lease, next_statuses,
            notify_lease_changes, notify_vm_changes, open_leases, open_leases_by_hand, pool_counts, pool_named,
            record_event, refuse_dead_leases, refuse_disagreement, release_vm, remembers_more, reported_status,
            request_vm, retire_vm, return_vm, revoke_vm, role_of_vm, rotate_vm, say_once, send_hints,
            serve_queue, settle_restored, settle_vm, silent_vms, stamp_lease, sweep_begins, sweep_deadlines,
            sweep_lost, sweep_queue, sweep_roles, sweep_secrets, take_back, tell_leases, tell_vms,
            unassigned_vms_count, vm_hint, warn_of_silence, welcome_vm, wrest_vms', '[,\s]+')));
END $$;

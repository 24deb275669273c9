-- What people and dashboards read: whole sentences instead of slugs, and nothing secret.

-- Machines and how they are.
CREATE OR REPLACE VIEW vm_status AS
SELECT v.hostname, v.pool, v.status, v.updated_at AS since, v.email AS held_by, l.status AS lease_status,
       coalesce(h.seen_at > clock() - fresh_for(), false) AS fresh, h.seen_at AS last_heard,
       CASE v.status
           WHEN 'booting' THEN 'enrolled, and not heard since'
           WHEN 'available' THEN CASE WHEN h.seen_at > clock() - fresh_for() THEN 'free'
                                      ELSE 'free, but not heard lately: it is not lent' END
           WHEN 'in-use' THEN CASE WHEN l.kind = 'hold' THEN 'taken by hand'
                                   WHEN l.status = 'active' THEN 'lent, and the command runs or has run'
                                   ELSE 'lent, and the command is about to start' END
           WHEN 'cleaning' THEN 'being wiped before it is lent again'
           WHEN 'retired' THEN 'gone for good'
           ELSE CASE WHEN v.reason = 'lost' THEN 'silent for too long; it comes back by itself once it is heard again'
                     WHEN v.reason LIKE 'unhealthy: check %' THEN v.reason || '; it comes back by itself, unless that happens too often'
                     ELSE v.reason || '; until an admin returns it: lablink vms return ' || v.hostname END
       END || CASE WHEN v.draining THEN '; draining: not lent again, unless returned: lablink vms return ' || v.hostname
                   ELSE '' END AS why
FROM vms v LEFT JOIN vm_heartbeats h ON h.vm_id = v.id LEFT JOIN leases l ON l.id = v.lease_id
ORDER BY length(v.hostname), v.hostname;
COMMENT ON VIEW vm_status IS 'Each machine: since when it is what it is, who has it, whether it is heard, and why, in words.';

-- Leases, newest first, with how long each step took.
CREATE OR REPLACE VIEW lease_history AS
SELECT l.id, l.email, l.pool, l.kind, l.hostname, l.status, l.created_at AS asked_at,
       coalesce(l.assigned_at, l.ended_at, clock()) - l.created_at AS waited,
       l.claimed_at - l.assigned_at AS until_claimed,
       l.active_at - coalesce(l.claimed_at, l.assigned_at) AS until_active,
       coalesce(l.ended_at, clock()) - l.active_at AS used,
       l.ended_at,
       CASE l.status
           WHEN 'queued' THEN CASE WHEN l.passed_over THEN 'did not come when a machine was kept' WHEN l.moves > 0 THEN 'waits for another machine' || coalesce(': ' || replace(l.trouble, '-', ' '), '')
                              ELSE 'waits for a machine' END
           WHEN 'ended' THEN CASE WHEN l.left_idle THEN 'nobody used it' WHEN l.ended_at >= l.expires_at THEN 'its time was up' ELSE 'handed back or released' END
           WHEN 'cancelled' THEN 'given up before it was ready'
           WHEN 'failed' THEN 'failed: ' || replace(l.failure, '-', ' ')
           ELSE 'under way' END AS how_it_ended
FROM leases l ORDER BY l.place DESC;
COMMENT ON VIEW lease_history IS 'Each lease: how long its steps took and how it ended, in words. Newest first.';

-- Who waits.
CREATE OR REPLACE VIEW waiting AS
SELECT i.position, l.pool, l.email, l.kind, l.created_at AS since,
       clock() - l.created_at AS waited, l.deadline AS until, l.id, l.group_name,
       CASE WHEN l.passed_over THEN 'did not come when a machine was kept' ELSE i.held_back END AS held_back
FROM leases l LEFT JOIN queue_places i ON i.id = l.id WHERE l.status = 'queued' ORDER BY l.pool, i.position;
COMMENT ON VIEW waiting IS 'The queue of each pool: who waits, at which position, since when, and until when at most.';

-- Machines of the fleet: what is wanted of each, and how it is.
CREATE OR REPLACE VIEW fleet_status AS
SELECT f.hostname, f.pool, f.wanted, f.instance_type, f.instance_id, f.made_at, f.invited_at, v.id AS vm_id, v.status,
       v.draining, v.updated_at AS since, v.email AS held_by, l.expires_at AS held_until, f.reboots,
       CASE WHEN NOT f.wanted THEN 'to be removed by the next apply'
            WHEN f.instance_id IS NULL THEN 'to be made by the next apply'
            WHEN f.invited_at IS NULL THEN 'to be invited by the next apply'
            WHEN v.id IS NULL THEN 'made, and not in service: it has not enrolled yet, or was retired'
            ELSE coalesce(v.reason, v.status) END AS why
FROM fleet_vms f LEFT JOIN vms v ON v.hostname = f.hostname AND v.status <> 'retired' LEFT JOIN leases l ON l.id = v.lease_id
ORDER BY length(f.hostname), f.hostname;
COMMENT ON VIEW fleet_status IS 'Each machine that Terraform makes: whether it is wanted, which instance it is, who has it.';

-- Refuses to change a view that is only read; TG_ARGV says what to change instead.
CREATE OR REPLACE FUNCTION guard_view() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is only read', TG_TABLE_NAME USING ERRCODE = 'LL003', HINT = TG_ARGV[0];
END $$;

CREATE OR REPLACE TRIGGER vm_status_guard_trigger INSTEAD OF INSERT OR UPDATE OR DELETE ON vm_status
    FOR EACH ROW EXECUTE FUNCTION guard_view('Change the machine: UPDATE vms SET status = … WHERE hostname = …');
CREATE OR REPLACE TRIGGER waiting_guard_trigger INSTEAD OF INSERT OR UPDATE OR DELETE ON waiting
    FOR EACH ROW EXECUTE FUNCTION guard_view('Change the lease: UPDATE leases SET status = ''cancelled'' WHERE id = …');
CREATE OR REPLACE TRIGGER fleet_status_guard_trigger INSTEAD OF INSERT OR UPDATE OR DELETE ON fleet_status
    FOR EACH ROW EXECUTE FUNCTION guard_view('Change what is wanted: UPDATE fleet_vms SET wanted = false WHERE hostname = …');

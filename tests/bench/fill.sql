-- A fleet of :n free machines that said hello, put there without waking anybody.
SET session_replication_role = replica;
INSERT INTO vms (hostname, status) SELECT 'vm-' || g, 'available' FROM generate_series(1, :n) g;
INSERT INTO vm_heartbeats (vm_id, seen_at) SELECT id, now() + interval '1 hour' FROM vms;
RESET session_replication_role;

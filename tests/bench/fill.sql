-- Machines 1 to :n that are free and have a role and the hub's token each, put there without waking anybody.
SET session_replication_role = replica;
INSERT INTO vms (id, hostname, status, role)
SELECT g, 'vm-' || g, 'available', 'lablink_vm_' || lpad(to_hex(g), 16, '0') FROM generate_series(1, :n) g;
SELECT setval('vms_id_seq', :n);
INSERT INTO vm_heartbeats (vm_id, seen_at) SELECT id, now() + interval '1 hour' FROM vms;
INSERT INTO vm_roles (role) SELECT role FROM vms;
RESET session_replication_role;

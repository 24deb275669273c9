-- Scale: the hub (what is known of a machine's token, and how machines are to speak), and requests in batches.

ALTER TABLE vm_roles ADD COLUMN hub_sha256 bytea;
COMMENT ON COLUMN vm_roles.hub_sha256 IS 'All that is known of the token with which the machine speaks over the hub.';
-- There are as many rows as machines, and they are written when one enrols.
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE vm_roles ADD CONSTRAINT vm_roles_token_is_hashed CHECK (octet_length(hub_sha256) = 32);
-- squawk-ignore disallowed-unique-constraint, constraint-missing-not-valid
ALTER TABLE vm_roles ADD CONSTRAINT vm_roles_token_is_its_own UNIQUE (hub_sha256);

ALTER TABLE pools ADD COLUMN transport text NOT NULL DEFAULT 'direct';
COMMENT ON COLUMN pools.transport IS 'How its machines are to speak: direct (to PostgreSQL), hub, or auto (whichever answers, the hub first).';
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE pools ADD CONSTRAINT pools_transport_is_one CHECK (transport IN ('direct', 'hub', 'auto'));

ALTER TABLE operations ADD COLUMN cancelled_by text;
COMMENT ON COLUMN operations.cancelled_by IS 'Who wants it to end: whoever is at it, in whichever allocator, sees that within a second.';

-- The same of a name, found in three steps instead of one a letter: every change of a machine is checked. Its column has 255 at most.
-- squawk-ignore ban-drop-constraint, constraint-missing-not-valid
ALTER TABLE vms DROP CONSTRAINT vms_hostname_is_a_name, ADD CONSTRAINT vms_hostname_is_a_name CHECK (hostname ~ '^[A-Za-z0-9._-]+$');

-- What follows from a change of leases is one trigger's, hints and all.
DROP TRIGGER IF EXISTS lease_update_trigger ON leases;
DROP TRIGGER IF EXISTS lease_insert_trigger ON leases;
-- squawk-ignore ban-drop-function
DROP FUNCTION IF EXISTS notify_lease_changes();

-- One trigger says what a change of a machine may be.
DROP TRIGGER IF EXISTS vm_custody_trigger ON vms;
-- squawk-ignore ban-drop-function
DROP FUNCTION IF EXISTS guard_vm_custody();

-- Requests that come together are one statement: what looked at each alone is no more. Only request_vm called these.
-- squawk-ignore ban-drop-function
DROP FUNCTION IF EXISTS check_acceptance(text, text, jsonb);
-- squawk-ignore ban-drop-function
DROP FUNCTION IF EXISTS earlier_request(text, bytea, bytea);

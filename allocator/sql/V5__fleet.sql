-- Machines in the cloud: which ones are wanted, and which are not lent any more because they are about to go.

-- A constant default is written nowhere: no row is touched.
ALTER TABLE vms ADD COLUMN draining boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN vms.draining IS 'Not lent to anybody any more; whoever has the machine keeps it to the end of the lease.';
-- In the migration's transaction neither can be done concurrently; there are thousands of machines at most.
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX vms_free;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX vms_free ON vms (pool, updated_at, id) WHERE status = 'available' AND NOT draining;

CREATE TABLE fleet_vms (
    hostname      varchar(63) PRIMARY KEY,
    pool          text NOT NULL DEFAULT 'default' REFERENCES pools (name),
    ami_id        text,
    instance_type text,
    subnet_id     text,
    disk_gb       integer,
    wanted        boolean NOT NULL DEFAULT true,
    instance_id   text UNIQUE,
    made_at       timestamptz,
    invited_at    timestamptz,
    reboots       integer NOT NULL DEFAULT 0,
    rebooted_at   timestamptz,
    created_at    timestamptz NOT NULL DEFAULT clock(),
    CONSTRAINT fleet_vms_hostname_is_a_name CHECK (hostname ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    CONSTRAINT fleet_vms_ami_id_is_one CHECK (ami_id ~ '^ami-[0-9a-f]{8,17}$'),
    CONSTRAINT fleet_vms_instance_type_is_one CHECK (instance_type ~ '^[a-z0-9-]+[.][a-z0-9-]+$'),
    CONSTRAINT fleet_vms_disk_is_of_a_size CHECK (disk_gb BETWEEN 8 AND 16384),
    CONSTRAINT fleet_vms_made_is_known CHECK ((made_at IS NULL) = (instance_id IS NULL)),
    CONSTRAINT fleet_vms_reboots_are_few CHECK (reboots BETWEEN 0 AND 3)
);
COMMENT ON TABLE fleet_vms IS 'The machines that Terraform makes: what is wanted here is there after lablink fleet apply.';
COMMENT ON COLUMN fleet_vms.ami_id IS 'This and what follows: null for what the fleet''s settings say.';
COMMENT ON COLUMN fleet_vms.wanted IS 'False from when it is taken out until Terraform has removed it.';
COMMENT ON COLUMN fleet_vms.instance_id IS 'The EC2 instance that it is, as the last apply left it; null where there is none.';
COMMENT ON COLUMN fleet_vms.invited_at IS 'When a join token for this instance was put into its secret.';
COMMENT ON COLUMN fleet_vms.reboots IS 'How often it was rebooted since it last worked; after three it is replaced.';

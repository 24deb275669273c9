-- What admins do by hand: the history of a machine is found by its name, and functions that gave way to triggers go.

-- In the migration's transaction it cannot be built concurrently; a million events keep writers waiting for two seconds.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX IF NOT EXISTS events_of_hostname ON events (hostname, id) WHERE hostname IS NOT NULL;
-- squawk-ignore ban-drop-function
DROP FUNCTION IF EXISTS guard_vm_identity(vms, vms);
-- squawk-ignore ban-drop-function
DROP FUNCTION IF EXISTS refuse_dead_leases(integer[]);

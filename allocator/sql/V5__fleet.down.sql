-- Back to version 4: machines are lent or they are not, and nobody here knows which are wanted. What else is of that
-- version comes with its migrate.
DROP VIEW IF EXISTS vm_status, fleet_status;
DROP FUNCTION IF EXISTS reset_drain() CASCADE;
DROP FUNCTION IF EXISTS record_drain() CASCADE;

-- Functions of version 5 go; those of version 4 know of no draining.
DO $$
DECLARE
    ours   text[] := regexp_split_to_array('drain_vm, drain_vms, undrain_vms, held_vms, grow_fleet, shrink_fleet, leaving_order,
        free_fleet_name, retire_idle_vms, retire_of_fleet, record_made, lose_instances, fleet_repairs, begin_reboot, end_reboots', '[,\s]+');
    reader oid;
BEGIN
    EXECUTE (SELECT coalesce(format('DROP FUNCTION %s', string_agg(p.oid::regprocedure::text, ', ')), 'SELECT') FROM pg_proc p
             WHERE p.pronamespace = 'public'::regnamespace AND p.proname = ANY (ours));
    FOR reader IN SELECT oid FROM pg_proc WHERE pronamespace IN ('public'::regnamespace, 'client_api'::regnamespace)
                  AND prokind = 'f' AND pg_get_functiondef(oid) ~ 'v\.draining|undrain_vms' LOOP
        EXECUTE regexp_replace(pg_get_functiondef(reader), 'AND \(?NOT v\.draining\)?|PERFORM undrain_vms[^;]*;', '', 'g');
    END LOOP;
END $$;
DROP TABLE fleet_vms;
ALTER TABLE vms DROP COLUMN draining;
CREATE INDEX vms_free ON vms (pool, updated_at, id) WHERE status = 'available';

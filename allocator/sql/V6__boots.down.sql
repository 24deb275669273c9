-- Back to version 5: whoever has a join token enrols, and boots are not counted. What else is of that version comes with
-- its migrate.
DROP VIEW IF EXISTS boot_times;
DROP FUNCTION IF EXISTS forget_boots() CASCADE;
DO $$
DECLARE
    ours text[] := regexp_split_to_array('enrol_instance, check_instance, is_open_token, note_refused_join, absent_machines,
        note_absence, booted, are_phases', '[,\s]+');
BEGIN
    EXECUTE (SELECT coalesce(format('DROP FUNCTION %s', string_agg(p.oid::regprocedure::text, ', ')), 'SELECT') FROM pg_proc p
             WHERE p.pronamespace IN ('public'::regnamespace, 'client_api'::regnamespace) AND p.proname = ANY (ours));
END $$;
DROP TABLE boots;
ALTER TABLE join_tokens DROP COLUMN instance_id;
ALTER TABLE join_tokens DROP COLUMN started_at;
ALTER TABLE join_tokens DROP COLUMN missed_at;

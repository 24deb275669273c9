-- Rows that a CHECK would refuse without a word about what to write instead: they meet these triggers first, which name the
-- same CHECK and say so. Of the triggers of a table they fire last, so on what the others made of the row.

-- Refuses the row: TG_ARGV has the CHECK's name, what is wrong, and the hint.
CREATE OR REPLACE FUNCTION refuse_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%', TG_ARGV[1] USING ERRCODE = 'check_violation', HINT = TG_ARGV[2],
        SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, CONSTRAINT = TG_ARGV[0];
END $$;

CREATE OR REPLACE TRIGGER pool_odd_claim_trigger BEFORE INSERT OR UPDATE ON pools
    FOR EACH ROW WHEN (NEW.claim_seconds <= 0) EXECUTE FUNCTION refuse_row('pools_claim_seconds_check',
    'claim_seconds is more than 0', 'It is how long a machine may take to fetch the command: SET claim_seconds = 60');
CREATE OR REPLACE TRIGGER pool_odd_command_trigger BEFORE INSERT OR UPDATE ON pools
    FOR EACH ROW WHEN (NEW.command_seconds <= 0) EXECUTE FUNCTION refuse_row('pools_command_seconds_check',
    'command_seconds is more than 0', 'It is how long a desktop may take to start, or a job to run: SET command_seconds = 90');
CREATE OR REPLACE TRIGGER pool_odd_keep_trigger BEFORE INSERT OR UPDATE ON pools
    FOR EACH ROW WHEN (NEW.keep_seconds <= 0) EXECUTE FUNCTION refuse_row('pools_keep_seconds_is_a_time',
    'keep_seconds is more than 0', 'It is how long a machine is kept for a fresh line: SET keep_seconds = 300');
CREATE OR REPLACE TRIGGER pool_odd_idle_trigger BEFORE INSERT OR UPDATE ON pools
    FOR EACH ROW WHEN (NEW.idle_seconds < 0 OR NEW.idle_warn_seconds <= 0 OR NEW.idle_seconds BETWEEN 1 AND NEW.idle_warn_seconds)
    EXECUTE FUNCTION refuse_row('pools_idle_seconds_is_a_time', 'a machine may be left unused for longer than the warning lasts, or for 0 s: for ever',
    'An hour, warned ten minutes before: SET idle_seconds = 3600, idle_warn_seconds = 600');
CREATE OR REPLACE TRIGGER pool_odd_lease_trigger BEFORE INSERT OR UPDATE ON pools
    FOR EACH ROW WHEN (NEW.lease_seconds <= 0) EXECUTE FUNCTION refuse_row('pools_lease_seconds_check',
    'lease_seconds is more than 0', 'It is how long a person may keep a machine: SET lease_seconds = 28800 for eight hours');
CREATE OR REPLACE TRIGGER pool_odd_name_trigger BEFORE INSERT OR UPDATE ON pools
    FOR EACH ROW WHEN (NEW.name !~ '^[a-z0-9][a-z0-9-]{0,62}$') EXECUTE FUNCTION refuse_row('pools_name_check',
    'that cannot be the name of a pool', 'Use small letters, digits and hyphens, 63 at most: gpu-2');
CREATE OR REPLACE TRIGGER pool_odd_queue_trigger BEFORE INSERT OR UPDATE ON pools
    FOR EACH ROW WHEN (NEW.queue_seconds <= 0) EXECUTE FUNCTION refuse_row('pools_queue_seconds_check',
    'queue_seconds is more than 0', 'It is how long a person may wait for a machine: SET queue_seconds = 86400 for a day');
CREATE OR REPLACE TRIGGER pool_odd_size_trigger BEFORE INSERT OR UPDATE ON pools
    FOR EACH ROW WHEN ((NEW.min_machines >= 0 AND NEW.spare_machines >= 0 AND NEW.boots_at_once > 0 AND NEW.shrink_after_seconds >= 0
                        AND NEW.max_machines >= NEW.min_machines AND greatest(NEW.min_machines, NEW.spare_machines, NEW.max_machines,
                                                                                      NEW.boots_at_once) <= 100000) IS FALSE) EXECUTE FUNCTION refuse_row(
    'pools_size_is_possible', 'a pool has between min_machines and max_machines, and boots more than none at a time',
    'Between 2 and 10, one of them ready for whoever comes next: '
    'SET min_machines = 2, max_machines = 10, spare_machines = 1, boots_at_once = 10, shrink_after_seconds = 600');
CREATE OR REPLACE TRIGGER pool_odd_terms_trigger BEFORE INSERT OR UPDATE ON pools
    FOR EACH ROW WHEN (NEW.extend_seconds < 0 OR NEW.longest_seconds <= 0 OR NEW.warn_seconds < 0) EXECUTE FUNCTION refuse_row(
    'pools_terms_are_times', 'extend_seconds, longest_seconds and warn_seconds are lengths of time',
    'Two hours at a time, a day in all, warned a quarter of an hour before: '
    'SET extend_seconds = 7200, longest_seconds = 86400, warn_seconds = 900');
CREATE OR REPLACE TRIGGER pool_odd_transport_trigger BEFORE INSERT OR UPDATE ON pools
    FOR EACH ROW WHEN (NEW.transport NOT IN ('direct', 'hub', 'auto')) EXECUTE FUNCTION refuse_row('pools_transport_is_one',
    'that is no way for machines to speak', 'SET transport = ''direct'' (to PostgreSQL), ''hub'', or ''auto'' (whichever answers)');

CREATE OR REPLACE TRIGGER schedule_odd_days_trigger BEFORE INSERT OR UPDATE ON pool_schedules
    FOR EACH ROW WHEN (num_nonnulls(NEW.days, NEW.on_date) <> 1 OR NOT NEW.days <@ '{mon,tue,wed,thu,fri,sat,sun}' OR NEW.days = '{}'
                        OR NEW.on_date NOT BETWEEN '2000-01-01' AND '2999-12-31')
    EXECUTE FUNCTION refuse_row('pool_schedules_has_days', 'a schedule is of days of the week or of one date',
    'Give days, ''{mon,tue,wed,thu,fri}'', or on_date, ''2026-11-30''');
CREATE OR REPLACE TRIGGER schedule_odd_machines_trigger BEFORE INSERT OR UPDATE ON pool_schedules
    FOR EACH ROW WHEN (NEW.machines NOT BETWEEN 0 AND 100000) EXECUTE FUNCTION refuse_row('pool_schedules_wants_machines',
    'a schedule asks for 0 to 100000 machines', 'It is how many the pool is to have then: SET machines = 25');
CREATE OR REPLACE TRIGGER schedule_odd_name_trigger BEFORE INSERT OR UPDATE ON pool_schedules
    FOR EACH ROW WHEN (NEW.name !~ '^[a-z0-9][a-z0-9-]{0,62}$') EXECUTE FUNCTION refuse_row('pool_schedules_name_is_one',
    'that cannot be the name of a schedule', 'Use small letters, digits and hyphens, 63 at most: workshop');
CREATE OR REPLACE TRIGGER schedule_odd_time_zone_trigger BEFORE INSERT OR UPDATE ON pool_schedules
    FOR EACH ROW WHEN (NOT is_time_zone(NEW.time_zone)) EXECUTE FUNCTION refuse_row('pool_schedules_time_zone_is_one',
    'there is no such time zone', 'Name a place: SET time_zone = ''Europe/Berlin''; all of them: SELECT name FROM pg_timezone_names WHERE name ~ ''/''');
CREATE OR REPLACE TRIGGER schedule_odd_times_trigger BEFORE INSERT OR UPDATE ON pool_schedules
    FOR EACH ROW WHEN (NEW.starts_at = NEW.ends_at) EXECUTE FUNCTION refuse_row('pool_schedules_takes_time',
    'a schedule begins and ends at different times', 'From nine to six: SET starts_at = ''09:00'', ends_at = ''18:00''');

CREATE OR REPLACE TRIGGER vm_odd_name_trigger BEFORE INSERT ON vms
    FOR EACH ROW WHEN (NEW.hostname !~ '^[A-Za-z0-9._-]{1,255}$') EXECUTE FUNCTION refuse_row('vms_hostname_is_a_name',
    'that cannot be the name of a machine', 'Use letters, digits, dots, hyphens and underscores: vm-1.example.org');

CREATE OR REPLACE TRIGGER join_token_odd_hash_trigger BEFORE INSERT ON join_tokens
    FOR EACH ROW WHEN (octet_length(NEW.token_sha256) <> 32) EXECUTE FUNCTION refuse_row('join_tokens_token_sha256_check',
    'a join token is kept as its SHA-256, which has 32 bytes', 'Have one made: lablink vms invite HOSTNAME');
CREATE OR REPLACE TRIGGER join_token_odd_name_trigger BEFORE INSERT ON join_tokens
    FOR EACH ROW WHEN (NEW.hostname !~ '^[A-Za-z0-9._-]{1,255}$') EXECUTE FUNCTION refuse_row('join_tokens_hostname_is_a_name',
    'that cannot be the name of a machine', 'Use letters, digits, dots, hyphens and underscores: lablink vms invite vm-1');

CREATE OR REPLACE TRIGGER fleet_odd_image_trigger BEFORE INSERT OR UPDATE ON fleet_vms
    FOR EACH ROW WHEN (NEW.ami_id !~ '^ami-[0-9a-f]{8,17}$') EXECUTE FUNCTION refuse_row('fleet_vms_ami_id_is_one',
    'that cannot be an image', 'Write it as EC2 does, ami-0123456789abcdef0; or NULL for the image of the settings');
CREATE OR REPLACE TRIGGER fleet_odd_disk_trigger BEFORE INSERT OR UPDATE ON fleet_vms
    FOR EACH ROW WHEN (NEW.disk_gb NOT BETWEEN 8 AND 16384) EXECUTE FUNCTION refuse_row('fleet_vms_disk_is_of_a_size',
    'a disk has 8 to 16384 GB', 'Give a size in that range, or NULL for that of the settings: SET disk_gb = 100');
CREATE OR REPLACE TRIGGER fleet_odd_instance_trigger BEFORE INSERT OR UPDATE ON fleet_vms
    FOR EACH ROW WHEN ((NEW.made_at IS NULL) <> (NEW.instance_id IS NULL)) EXECUTE FUNCTION refuse_row(
    'fleet_vms_made_is_known', 'a machine that was made has an instance, and no other has one',
    'Leave both to: lablink fleet apply');
CREATE OR REPLACE TRIGGER fleet_odd_name_trigger BEFORE INSERT OR UPDATE ON fleet_vms
    FOR EACH ROW WHEN (NEW.hostname !~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$') EXECUTE FUNCTION refuse_row(
    'fleet_vms_hostname_is_a_name', 'that cannot be the name of a machine in the cloud',
    'Use small letters, digits and hyphens inside, 63 at most: vm-7');
CREATE OR REPLACE TRIGGER fleet_odd_pool_trigger BEFORE UPDATE ON fleet_vms
    FOR EACH ROW WHEN (NEW.pool <> OLD.pool AND OLD.instance_id IS NOT NULL AND NEW.instance_id = OLD.instance_id) EXECUTE FUNCTION
    refuse_row('fleet_vms_pool_fkey', 'a machine that is there keeps its pool',
    'Let it go, and another come: SET wanted = false and lablink fleet apply, then lablink fleet grow 1 --pool NAME');
CREATE OR REPLACE TRIGGER fleet_odd_reboots_trigger BEFORE INSERT OR UPDATE ON fleet_vms
    FOR EACH ROW WHEN (NEW.reboots NOT BETWEEN 0 AND 3) EXECUTE FUNCTION refuse_row('fleet_vms_reboots_are_few',
    'a machine is rebooted three times at most', 'Let it be rebooted again: SET reboots = 0. Or: lablink fleet replace HOSTNAME');
CREATE OR REPLACE TRIGGER fleet_odd_type_trigger BEFORE INSERT OR UPDATE ON fleet_vms
    FOR EACH ROW WHEN (NEW.instance_type !~ '^[a-z0-9-]+[.][a-z0-9-]+$') EXECUTE FUNCTION refuse_row(
    'fleet_vms_instance_type_is_one', 'that cannot be an instance type',
    'Write it as EC2 does, g5.xlarge; or NULL for that of the settings');

CREATE OR REPLACE TRIGGER boot_odd_trigger BEFORE INSERT OR UPDATE ON boots
    FOR EACH ROW WHEN (NEW.seconds < 0) EXECUTE FUNCTION refuse_row('boots_seconds_check',
    'a boot takes no less than 0 seconds', 'Leave it to the machine, which tells its boots itself.');

CREATE OR REPLACE TRIGGER secret_odd_trigger BEFORE INSERT ON lease_secrets
    FOR EACH ROW WHEN (num_nonnulls(NEW.secrets, NEW.line) <> 1) EXECUTE FUNCTION refuse_row('lease_secrets_check',
    'a code comes with its request or in a line that somebody typed, never both ways',
    'Lend a machine with a command, and its code is kept: '
    'UPDATE vms SET status = ''in-use'', email = …, crd_command = … WHERE hostname = …');

CREATE OR REPLACE TRIGGER archive_odd_trigger BEFORE INSERT ON event_archives
    FOR EACH ROW WHEN (octet_length(NEW.sha256) <> 32) EXECUTE FUNCTION refuse_row('event_archives_sha256_check',
    'an archive is known by the SHA-256 of its file, which has 32 bytes', 'Make one: lablink db archive --before MONTH --to DIR');

CREATE OR REPLACE TRIGGER sealing_odd_trigger BEFORE INSERT OR UPDATE ON event_sealing
    FOR EACH ROW WHEN (NOT NEW.only_row) EXECUTE FUNCTION refuse_row('event_sealing_only_row_check',
    'there is one row of this', 'Leave it; if it is missing, this makes it anew: lablink db migrate');
CREATE OR REPLACE TRIGGER counting_odd_trigger BEFORE INSERT OR UPDATE ON usage_counting
    FOR EACH ROW WHEN (NOT NEW.only_row) EXECUTE FUNCTION refuse_row('usage_counting_only_row_check',
    'there is one row of this', 'Leave it; if it is missing, this makes it anew: lablink db migrate');

CREATE OR REPLACE TRIGGER operation_odd_end_trigger BEFORE INSERT OR UPDATE ON operations
    FOR EACH ROW WHEN (CASE WHEN NEW.status IN ('waiting', 'running') THEN NEW.finished_at IS NOT NULL
                       WHEN NEW.status IN ('done', 'failed') THEN NEW.finished_at IS NULL END) EXECUTE FUNCTION refuse_row('operations_check',
    'an operation has finished_at when it is over, and not before',
    'Close one that is over: '
    'UPDATE operations SET status = ''failed'', error = ''interrupted'', finished_at = clock() WHERE id = …');
CREATE OR REPLACE TRIGGER operation_odd_error_trigger BEFORE INSERT OR UPDATE ON operations
    FOR EACH ROW WHEN ((NEW.status = 'failed') <> (NEW.error IS NOT NULL)) EXECUTE FUNCTION refuse_row('operations_check1',
    'an operation that failed says why in error, and no other does',
    'Say both: UPDATE operations SET status = ''failed'', error = ''interrupted'', finished_at = clock() WHERE id = …');
CREATE OR REPLACE TRIGGER operation_odd_status_trigger BEFORE INSERT OR UPDATE ON operations
    FOR EACH ROW WHEN (NEW.status NOT IN ('waiting', 'running', 'done', 'failed')) EXECUTE FUNCTION refuse_row('operations_status_check',
    'there is no such status of an operation', 'An operation is one of: waiting, running, done, failed');

CREATE OR REPLACE TRIGGER admin_odd_name_trigger BEFORE INSERT OR UPDATE ON admins
    FOR EACH ROW WHEN (NEW.name !~ '^[a-z0-9][a-z0-9._-]{0,62}$') EXECUTE FUNCTION refuse_row('admins_name_is_one',
    'that cannot be the name of an admin', 'Use small letters, digits, dots, hyphens and underscores, 63 at most: ada or ci.grow');
CREATE OR REPLACE TRIGGER admin_odd_token_trigger BEFORE INSERT OR UPDATE ON admins
    FOR EACH ROW WHEN (octet_length(NEW.token_sha256) <> 32) EXECUTE FUNCTION refuse_row('admins_token_is_hashed',
    'a token is kept as its SHA-256, which has 32 bytes', 'Have one made: lablink admins add NAME');

-- What is odd about a lease in its status: the CHECK, what is wrong, the hint. NULL when nothing is.
CREATE OR REPLACE FUNCTION odd_in_its_status(lease leases) RETURNS text[] LANGUAGE sql STABLE
RETURN CASE
    WHEN lease.status NOT IN ('queued', 'assigned', 'claimed', 'active', 'ended', 'failed', 'cancelled')
        THEN ARRAY['leases_status_is_known', 'there is no such status of a lease', 'Leave it out: a lease begins as queued.']
    WHEN lease.status = 'queued' AND num_nonnulls(lease.vm_id, lease.hostname, lease.epoch) > 0
        THEN ARRAY['leases_queued_has_no_vm', 'a lease that waits has no machine',
            'Lend it one, and it follows: UPDATE vms SET status = ''in-use'', lease_id = … WHERE hostname = …']
    WHEN lease.status IN ('assigned', 'claimed', 'active', 'ended')
         AND num_nulls(lease.vm_id, lease.hostname, lease.epoch, lease.assigned_at) > 0
        THEN ARRAY['leases_served_has_a_vm', format('a lease is %s on a machine that was lent to it', lease.status),
            CASE lease.status WHEN 'ended' THEN 'Say all of what it had: vm_id, hostname, epoch, assigned_at'
            ELSE 'Lend one, and a lease follows: '
                 'UPDATE vms SET status = ''in-use'', email = …, crd_command = … WHERE hostname = …' END]
    WHEN lease.status = 'active' AND (lease.kind = 'typed' OR lease.kind <> 'hold' AND lease.started_at IS NULL
                                      OR lease.kind = 'desktop' AND lease.exit_code IS DISTINCT FROM 0)
        THEN ARRAY[CASE WHEN lease.kind = 'typed' THEN 'leases_active_has_a_known_kind'
                        WHEN lease.started_at IS NULL THEN 'leases_active_was_started'
                        ELSE 'leases_active_desktop_exited_0' END,
            'a lease is active once its command has started, a desktop''s with exit code 0',
            'Its machine reports that by itself. Who knows better says all of it: '
            'SET status = ''active'', kind = …, started_at = clock(), exit_code = 0 WHERE id = …'] END;

-- The same about what is written into it.
CREATE OR REPLACE FUNCTION odd_as_written(lease leases) RETURNS text[] LANGUAGE sql STABLE
RETURN CASE
    WHEN coalesce(lease.kind NOT IN ('desktop', 'job', 'hold', 'typed'), true)
        THEN ARRAY['leases_kind_check', 'a lease is a desktop, a job, a hold or typed',
            'Lend a machine, and a lease follows: '
            'UPDATE vms SET status = ''in-use'', email = …, crd_command = … WHERE hostname = …']
    WHEN (lease.status = 'failed') <> (lease.failure IS NOT NULL)
        THEN ARRAY['leases_failed_has_a_failure', 'a lease that failed says why in failure, and no other does',
            'Say both: UPDATE leases SET status = ''failed'', failure = ''vm-failed'' WHERE id = …']
    WHEN lease.failure !~ '^[a-z][a-z-]{0,39}$'
        THEN ARRAY['leases_failure_check', 'failure is a word, from which pages make a sentence',
            'Words that they know: command-failed, timed-out, not-installed, lost, vm-failed, unknown']
    WHEN (lease.status IN ('ended', 'failed', 'cancelled')) <> (lease.ended_at IS NOT NULL)
        THEN ARRAY['leases_terminal_has_an_end', 'a lease gets ended_at by itself, when it is over',
            'End it: UPDATE leases SET status = ''ended'' WHERE id = … (''cancelled'' before it is active)']
    WHEN lease.status IN ('queued', 'assigned', 'claimed') AND lease.deadline IS NULL
        THEN ARRAY['leases_waiting_has_a_deadline', 'whoever waits has a deadline',
            'Let them wait longer: UPDATE leases SET deadline = clock() + interval ''1 day'' WHERE id = …']
    WHEN length(lease.output) > 65536
        THEN ARRAY['leases_output_check', 'output has 65536 characters at most', 'Keep its end: SET output = right(…, 65536)']
    END;

-- One trigger, for it fires at every step of every lease: one for each CHECK would cost ten times as much.
CREATE OR REPLACE FUNCTION guard_odd_lease() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    odd text[];
BEGIN
    IF NEW.status = 'assigned' AND NEW.kind IN ('desktop', 'job') AND num_nonnulls(NEW.failure, NEW.ended_at, NEW.output) = 0
       AND num_nulls(NEW.vm_id, NEW.hostname, NEW.epoch, NEW.assigned_at, NEW.deadline) = 0 THEN
        RETURN NEW;  -- nothing of what follows, and it is what happens most
    END IF;
    odd := coalesce(public.odd_in_its_status(NEW), public.odd_as_written(NEW));
    IF odd IS NOT NULL THEN
        RAISE EXCEPTION '%', odd[2] USING ERRCODE = 'check_violation', HINT = odd[3],
            SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, CONSTRAINT = odd[1];
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER lease_odd_trigger BEFORE INSERT OR UPDATE ON leases
    FOR EACH ROW EXECUTE FUNCTION guard_odd_lease();
CREATE OR REPLACE TRIGGER lease_odd_end_trigger BEFORE UPDATE OF deadline, expires_at ON leases
    FOR EACH ROW WHEN (NOT (NEW.deadline BETWEEN '2000-01-01Z' AND '3000-01-01Z' AND NEW.expires_at BETWEEN '2000-01-01Z' AND '3000-01-01Z'))
    EXECUTE FUNCTION refuse_row('leases_end_comes',
    'the end of a lease, and its deadline, is a time that comes',
    'A day longer: SET expires_at = expires_at + interval ''1 day''; until somebody ends it: SET expires_at = NULL');
CREATE OR REPLACE TRIGGER lease_odd_line_trigger BEFORE INSERT OR UPDATE OF needs_line, status, kind ON leases
    FOR EACH ROW WHEN (NEW.needs_line AND (NEW.kind <> 'desktop' OR NEW.status IN ('claimed', 'active')))
    EXECUTE FUNCTION refuse_row('leases_line_is_waited_for',
    'who waits for a fresh line has a desktop that has not begun',
    'Move one that has, and its holder is asked for a line on another machine: UPDATE leases SET status = ''queued'' WHERE id = …');

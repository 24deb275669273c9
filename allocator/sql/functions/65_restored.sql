-- What becomes of a database that comes out of a backup.

-- How far a restored machine's epoch jumps: past all that it was handed in the time that the database has forgotten.
CREATE OR REPLACE FUNCTION epoch_leap() RETURNS bigint LANGUAGE sql IMMUTABLE
RETURN 1000000;

-- What was true when the backup was made is not believed any more. Every live lease fails, for its command may have run
-- since. Every epoch jumps above p_floor (the highest of the database that is replaced) and no machine is clean. A
-- machine whose role this server does not have can only be invited again. p_roles are machines' roles of the database
-- that is replaced: those without a machine here are the next sweep's. Returns what it cost.
CREATE OR REPLACE FUNCTION settle_restored(
    p_backup text, p_floor bigint, p_roles name[], OUT leases_failed bigint, OUT vms_to_invite text[])
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    UPDATE leases SET status = 'failed', failure = 'database-restored' WHERE live;
    GET DIAGNOSTICS leases_failed = ROW_COUNT;
    UPDATE vms SET status = CASE status WHEN 'available' THEN 'cleaning' ELSE status END,
           epoch = greatest(epoch + 1, least(greatest(epoch, p_floor) + epoch_leap(), highest_epoch()));
    UPDATE vms SET status = 'failed', reason = 'unhealthy: this server does not have its role; invite it again'
    WHERE status IN ('booting', 'cleaning') AND role IS NOT NULL AND NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role);
    vms_to_invite := ARRAY(SELECT hostname FROM vms WHERE status = 'failed' AND role IS NOT NULL
                           AND NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) ORDER BY hostname);
    INSERT INTO vm_roles (role) SELECT rolname FROM pg_roles WHERE rolname = ANY (p_roles) ON CONFLICT DO NOTHING;
    PERFORM record_event('database.restored', NULL, NULL, NULL, jsonb_build_object(
        'backup', p_backup, 'leases_failed', leases_failed, 'vms_to_invite', cardinality(vms_to_invite)));
END $$;

-- A machine's token for the hub is the one that it has now, as its password is, which is the server's and in no backup: one that
-- was changed since does not come back. p_roles and p_tokens are those of the database that is replaced.
CREATE OR REPLACE FUNCTION keep_present_hub_tokens(p_roles name[], p_tokens bytea[]) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    UPDATE vm_roles r SET hub_sha256 = present.token FROM unnest(p_roles, p_tokens) AS present (role, token)
    WHERE r.role = present.role AND r.hub_sha256 IS DISTINCT FROM present.token;
END $$;

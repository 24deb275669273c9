-- Health: what a machine finds wrong with itself takes it out of service, and it comes back when that has passed, but not for ever.

-- The machine cannot do its work (it cannot be wiped, its disk fails): it is failed until an admin returns it. While
-- an admin has it, they may have made it ill: then what its own checks find is left alone.
CREATE OR REPLACE FUNCTION client_api.unhealthy(p_epoch bigint, p_reason text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    vm vms := client_vm(true);
BEGIN
    PERFORM check_epoch(vm, p_epoch);
    IF vm.status <> 'failed'
       AND NOT EXISTS (SELECT FROM leases WHERE id = vm.lease_id AND kind = 'hold' AND p_reason LIKE 'check %') THEN
        UPDATE vms SET status = 'failed', reason = left('unhealthy: ' || regexp_replace(
            harmless(blot_out(coalesce(p_reason, 'no reason given'))), '[[:space:]]+', ' ', 'g'), 200) WHERE id = vm.id;
    END IF;
    RETURN (SELECT status FROM vms WHERE id = vm.id);
END $$;

-- Whether this machine may come back by itself: its own checks failed it, and no more than three times within a day. A machine that
-- comes and goes would cost person after person their place, so from then on an admin returns it.
CREATE OR REPLACE FUNCTION may_return(vm vms) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
SELECT vm.status = 'failed' AND vm.reason LIKE 'unhealthy: check %' AND (
    SELECT count(*) FROM events e WHERE (e.hostname, e.vm_id) = (vm.hostname, vm.id) AND e.kind = 'vm.failed' AND e.at > clock() - interval '1 day'
    AND e.detail ->> 'reason' LIKE 'unhealthy: check %') <= 3
$$;

-- The machine's own checks pass again: it is cleaned, then available. One that is not to come back by itself stays as it is, and so
-- does one that is not failed. Returns its status.
CREATE OR REPLACE FUNCTION client_api.well(p_epoch bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    vm vms := client_vm(true);
BEGIN
    PERFORM check_epoch(vm, p_epoch);
    IF may_return(vm) THEN
        UPDATE vms SET status = 'cleaning' WHERE id = vm.id;
    END IF;
    RETURN (SELECT status FROM vms WHERE id = vm.id);
END $$;

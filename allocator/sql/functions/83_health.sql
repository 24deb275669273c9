-- Health: what a machine finds wrong with itself takes it out of service, and it comes back when that has passed, but not for ever.

-- Of these machines those that are lent though their own checks fail, and what these find: as each said last since nobody had it before.
CREATE OR REPLACE FUNCTION unwell_vms(p_vms integer[]) RETURNS TABLE (id integer, hostname text, reason text) LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT v.id, v.hostname::text, last.reason FROM vms v JOIN leases l ON l.id = v.lease_id, LATERAL (
        SELECT e.kind, e.detail ->> 'reason' AS reason FROM events e
        WHERE (e.hostname, e.vm_id) = (v.hostname, v.id) AND e.at >= l.assigned_at AND e.kind IN ('vm.in-use', 'vm.unwell', 'vm.well')
        ORDER BY e.id DESC LIMIT 1) AS last
    WHERE v.id = ANY (p_vms) AND v.status = 'in-use' AND last.kind = 'vm.unwell'
$$;

-- The same of one: what it finds, or null.
CREATE OR REPLACE FUNCTION unwell(vm vms) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT reason FROM unwell_vms(ARRAY[vm.id])
$$;

-- Whether a machine stays with whoever has it though a check of its own fails: so many of its pool fail theirs that what they have in
-- common is the likelier culprit. They go as those go that fall silent: a fifth of the pool in five minutes, and beyond one fifth only
-- while most are well. One report is weighed at a time, and nobody waits for another: a machine that stays says so again.
CREATE OR REPLACE FUNCTION stays_lent(vm vms, p_reason text) RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    failing CONSTANT text := '^unhealthy: (rebooted, because it was )?check ';
    its     record;
    others  bigint;
    ill     bigint;
BEGIN
    IF vm.status <> 'in-use' OR p_reason !~ failing THEN
        RETURN false;
    ELSIF NOT sweep_begins('checks') THEN
        RETURN true;
    END IF;
    SELECT count(*) AS fleet, count(*) FILTER (WHERE v.reason ~ failing) AS gone,
           count(*) FILTER (WHERE v.reason ~ failing AND v.updated_at > clock() - interval '5 minutes') AS lately,
           array_agg(v.id) FILTER (WHERE v.status = 'in-use' AND v.id <> vm.id) AS lent
    INTO its FROM vms v WHERE v.pool = vm.pool AND v.status <> 'retired';
    others := (SELECT count(*) FROM unwell_vms(its.lent));
    ill := its.gone + others + 1;
    IF room_to_give_up(its.fleet, its.lately) > 0 AND (ill <= room_to_give_up(its.fleet, 0) OR ill * 2 < its.fleet) THEN
        RETURN false;
    ELSIF unwell(vm) IS NULL THEN
        PERFORM record_event('vm.unwell', vm.id, vm.hostname, vm.lease_id, jsonb_build_object('epoch', vm.epoch, 'reason', p_reason));
        IF others = 0 THEN
            PERFORM record_event('alert.checks', NULL, NULL, NULL, jsonb_build_object('pool', vm.pool, 'unwell', ill, 'fleet', its.fleet));
        END IF;
    END IF;
    RETURN true;
END $$;

-- The same in words of all machines of a pool, if there is something to say.
CREATE OR REPLACE FUNCTION why_unwell(p_pool text) RETURNS TABLE (what text, holds boolean, detail text) LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT 'its lent machines pass their own checks', false, format(
        '%s do not, and stay with whoever has them, because so many fail at once; such as %s', count(*), min(u.hostname || ': ' || u.reason))
    FROM unwell_vms(ARRAY(SELECT v.id FROM vms v WHERE v.pool = p_pool)) AS u HAVING count(*) > 0
$$;

-- The machine cannot do its work (it cannot be wiped, its disk fails): it is failed until an admin returns it. While
-- an admin has it, they may have made it ill: then what its own checks find is left alone. Returns its status: one that is still
-- in-use goes on, and says so again while that is so.
CREATE OR REPLACE FUNCTION client_api.unhealthy(p_epoch bigint, p_reason text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    vm  vms := client_vm(true);
    why text := left('unhealthy: ' || regexp_replace(
            harmless(blot_out(coalesce(p_reason, 'no reason given'))), '[[:space:]]+', ' ', 'g'), 200);
BEGIN
    PERFORM check_epoch(vm, p_epoch);
    IF vm.status = 'failed' OR EXISTS (SELECT FROM leases WHERE id = vm.lease_id AND kind = 'hold' AND p_reason LIKE 'check %') THEN
        RETURN vm.status;
    ELSIF stays_lent(vm, why) THEN
        RETURN vm.status;
    END IF;
    UPDATE vms SET status = 'failed', reason = why WHERE id = vm.id;
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
-- does one that is not failed; of one that stayed with whoever has it that is noted. Returns its status.
CREATE OR REPLACE FUNCTION client_api.well(p_epoch bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    vm vms := client_vm(true);
BEGIN
    PERFORM check_epoch(vm, p_epoch);
    IF may_return(vm) THEN
        UPDATE vms SET status = 'cleaning' WHERE id = vm.id;
    ELSIF unwell(vm) IS NOT NULL THEN
        PERFORM record_event('vm.well', vm.id, vm.hostname, vm.lease_id, jsonb_build_object('epoch', vm.epoch));
    END IF;
    RETURN (SELECT status FROM vms WHERE id = vm.id);
END $$;

-- A pool whose machines fail by the dozen: a bad image, or something that all of them need. Else whoever waits there would be given
-- one machine after the other, and nobody would have any.

-- How many machines of a pool may fail by themselves within a minute before that is the pool's matter: a fifth, and at least three.
CREATE OR REPLACE FUNCTION may_fail(p_pool text) RETURNS integer LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT greatest(3, ceil(count(*) * 0.2))::integer FROM vms WHERE pool = p_pool AND status <> 'retired'
$$;

-- How many of so many machines may be given up now for what they may have in common, so many having been within the last five minutes:
-- a fifth of them in five minutes, and at least two.
CREATE OR REPLACE FUNCTION room_to_give_up(p_machines bigint, p_lately bigint) RETURNS integer LANGUAGE sql IMMUTABLE
RETURN greatest(2, ceil(p_machines * 0.2))::integer - p_lately;

-- Lets the pool rest for a minute once more have failed. What an admin took out does not count.
CREATE OR REPLACE FUNCTION rest_if_failing(p_pool text) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    failed integer := (SELECT count(*) FROM vms WHERE pool = p_pool AND status = 'failed' AND reason !~ '^held by '
                       AND updated_at > clock() - interval '1 minute');
BEGIN
    IF failed <= 3 OR failed <= may_fail(p_pool) THEN
        RETURN;
    END IF;
    UPDATE pools SET rests_until = clock() + interval '1 minute' WHERE name = p_pool AND (rests_until > clock()) IS NOT TRUE;
    IF FOUND THEN
        PERFORM record_event('alert.failing', NULL, NULL, NULL, jsonb_build_object('pool', p_pool, 'failed', failed));
    END IF;
END $$;

-- To how many who wait in the pool machines may be given now; null: to as many as there are. Nobody while it rests; and in the ten
-- minutes after, no more at a time than may fail: when their commands have begun, others follow.
CREATE OR REPLACE FUNCTION room_while_failing(p_pool text) RETURNS bigint LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT CASE WHEN p.rests_until > clock() THEN 0 ELSE greatest(0, may_fail(p.name) - (
        SELECT count(*) FROM leases l WHERE l.pool = p.name AND l.status IN ('assigned', 'claimed') AND NOT l.needs_line)) END
    FROM pools p WHERE p.name = p_pool AND p.rests_until > clock() - interval '10 minutes'
$$;

-- The same in words, if there is something to say.
CREATE OR REPLACE FUNCTION why_failing(p_pool text) RETURNS TABLE (what text, holds boolean, detail text) LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT 'its machines are well', false, CASE
        WHEN p.rests_until > clock() THEN 'many failed within a minute, so none is lent to those who wait, for ' || until(p.rests_until)
        ELSE format('many failed a while ago, so at most %s at a time are lent until their commands have begun, for %s',
                    may_fail(p.name), until(p.rests_until + interval '10 minutes')) END
    FROM pools p WHERE p.name = p_pool AND p.rests_until > clock() - interval '10 minutes'
$$;

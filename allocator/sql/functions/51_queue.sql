-- Who is next: plain first come first served, or each group in its turn where groups compete, within what they may have.

-- The queue of a pool in which groups compete. Whoever lost a machine is first. Then whoever is of the group that has the fewest
-- machines there, counted with what it gets before; of those, who came first. Last are those whose group may not have more
-- (held_back says by what). With p_most, only so many of each group are looked at.
CREATE OR REPLACE FUNCTION fair_queue(p_pool text, p_most integer DEFAULT NULL)
RETURNS TABLE (id uuid, "position" bigint, held_back text) LANGUAGE sql STABLE SECURITY DEFINER ROWS 10
SET search_path = pg_catalog, public, pg_temp AS $$
    WITH RECURSIVE waiting (name) AS (  -- from one group to the next in the index; the last is none, which is a group too
        SELECT min(l.group_name) FROM leases l WHERE l.pool = p_pool AND l.status = 'queued' AND l.group_name IS NOT NULL
        UNION ALL
        SELECT (SELECT min(l.group_name) FROM leases l WHERE l.pool = p_pool AND l.status = 'queued' AND l.group_name > w.name)
        FROM waiting w WHERE w.name IS NOT NULL
    ), groups AS MATERIALIZED (
        SELECT coalesce(w.name, '') AS name, machines_of(p_pool, w.name) AS machines, room_of(p_pool, w.name) AS room,
               quota_in_words(p_pool, w.name) AS quota FROM waiting w
    ), people AS (
        SELECT l.id, l.place, l.moves, coalesce(l.group_name, '') AS name FROM leases l
        WHERE p_most IS NULL AND l.pool = p_pool AND l.status = 'queued' AND NOT l.passed_over
        UNION ALL
        SELECT q.*, g.name FROM groups g CROSS JOIN LATERAL (
            (SELECT l.id, l.place, l.moves FROM leases l
             WHERE l.pool = p_pool AND l.status = 'queued' AND l.group_name = g.name AND NOT l.passed_over
             ORDER BY l.place LIMIT p_most)
            UNION ALL
            (SELECT l.id, l.place, l.moves FROM leases l
             WHERE g.name = '' AND l.pool = p_pool AND l.status = 'queued' AND l.group_name IS NULL AND NOT l.passed_over
             ORDER BY l.place LIMIT p_most)) AS q
        WHERE p_most IS NOT NULL
    ), turns AS (
        SELECT p.id, p.place, p.moves = 0 AS is_new, g.machines + p.n AS machines, coalesce(p.n > g.room, false) AS over, g.quota
        FROM (SELECT *, row_number() OVER (PARTITION BY name COLLATE "C" ORDER BY place) AS n FROM people) AS p JOIN groups g ON g.name = p.name
    ), keys AS (  -- one number to sort by: as columns it takes ten times as long
        SELECT id, CASE WHEN over THEN quota END AS held_back,
               (over::integer::bigint << 61) + CASE WHEN is_new THEN (1::bigint << 60) + (machines << 40) ELSE 0 END + place AS key FROM turns
    )
    SELECT k.id, row_number() OVER (ORDER BY k.key), k.held_back FROM keys k;
$$;

-- Everybody who waits, and at which position, but for those who are passed over. Where no group waits nothing is done for groups.
CREATE OR REPLACE VIEW queue_places AS
SELECT l.pool, l.id, row_number() OVER (PARTITION BY l.pool ORDER BY l.place) AS position, NULL::text AS held_back
FROM leases l WHERE l.status = 'queued' AND NOT l.passed_over AND l.pool <> ALL (ARRAY(
    SELECT p.name FROM pools p WHERE EXISTS (
        SELECT FROM leases g WHERE g.pool = p.name AND g.status = 'queued' AND g.group_name IS NOT NULL)))
UNION ALL
SELECT p.name, f.id, f.position, f.held_back FROM (
    SELECT name FROM pools WHERE EXISTS (
        SELECT FROM leases g WHERE g.pool = name AND g.status = 'queued' AND g.group_name IS NOT NULL) OFFSET 0) AS p
CROSS JOIN LATERAL fair_queue(p.name) AS f;
COMMENT ON VIEW queue_places IS 'Who waits in each pool, at which position; held_back says what keeps somebody waiting though a machine may be free.';

-- Those who wait in the pool and whom its budget would let have machines if there were enough, in their order, of those whom their group
-- lets, and of p_lease; null where it has no budget.
CREATE OR REPLACE FUNCTION affordable_queue(p_pool text, p_lease uuid DEFAULT NULL) RETURNS uuid[] LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    RETURN (SELECT within_budget(p.name, ARRAY(
                SELECT q.id FROM queue_places q WHERE q.pool = p_pool AND (q.held_back IS NULL OR q.id = p_lease) ORDER BY q.position))
            FROM pools p WHERE p.name = p_pool AND p.is_budgeted);
END $$;

-- Whether somebody of the group waits in the pool.
CREATE OR REPLACE FUNCTION group_waits(p_pool text, p_group text) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM leases q WHERE q.pool = p_pool AND q.status = 'queued' AND q.group_name = p_group)
$$;

-- Locks what is counted while machines of these pools are given to those who wait: pools that have a budget, then groups of which
-- somebody waits and that may have some more machines, not all they like. Returns those groups. Everybody locks machines and leases first,
-- then pools, then groups, each kind at once and by name: whoever serves several pools in a transaction calls this for all of them
-- before the first. A group that may have no more keeps nobody waiting.
CREATE OR REPLACE FUNCTION lock_for_serving(p_pools text[]) RETURNS text[] LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM FROM pools p WHERE p.name = ANY (p_pools) AND p.is_budgeted ORDER BY p.name FOR NO KEY UPDATE;
    IF EXISTS (SELECT FROM leases q WHERE q.pool = ANY (p_pools) AND q.status = 'queued' AND q.group_name IS NOT NULL) THEN
        RETURN ARRAY(
            SELECT g.name FROM groups g WHERE EXISTS (
                SELECT FROM unnest(p_pools) AS p (name) WHERE group_waits(p.name, g.name) AND room_of(p.name, g.name) > 0)
            ORDER BY g.name FOR NO KEY UPDATE);
    END IF;
    RETURN '{}';
END $$;

-- Locks the first so many of a pool in which groups compete. Of those that have a limit only p_locked are served: they are counted
-- by nobody else meanwhile.
CREATE OR REPLACE FUNCTION next_in_queue(p_pool text, p_number integer, p_locked text[]) RETURNS uuid[] LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    most  integer := p_number + 20;  -- some may be locked by others; where that is not enough, all are looked at
    later text[] := ARRAY(SELECT g.name FROM groups g WHERE g.name <> ALL (p_locked) AND group_waits(p_pool, g.name) AND has_quota(p_pool, g.name));
    due   uuid[];
    those uuid[];
BEGIN
    LOOP
        due := ARRAY(SELECT f.id FROM fair_queue(p_pool, most) AS f WHERE f.held_back IS NULL ORDER BY f.position);
        those := ARRAY(
            SELECT l.id FROM unnest(due) WITH ORDINALITY AS d (id, n) JOIN leases l ON l.id = d.id
            WHERE l.status = 'queued' AND NOT l.passed_over AND coalesce(l.group_name, '') <> ALL (later) ORDER BY d.n LIMIT p_number FOR UPDATE OF l SKIP LOCKED);
        EXIT WHEN cardinality(those) = p_number OR (cardinality(due) < most) IS NOT FALSE;  -- fewer than that are all
        most := NULL;
    END LOOP;
    RETURN those;
END $$;

-- How many machines of the pool are free and fresh, p_most at most.
CREATE OR REPLACE FUNCTION count_free(p_pool text, p_most bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    fresh_since timestamptz := clock() - fresh_for();
BEGIN
    RETURN (SELECT count(*) FROM (
        SELECT FROM vms v WHERE v.pool = p_pool AND is_free(v, (SELECT h.seen_at FROM vm_heartbeats h WHERE h.vm_id = v.id), fresh_since)
        LIMIT p_most) AS free);
END $$;

-- Locks free, fresh machines of the pool, at most so many, the one that was free longest first. The order is one that only the
-- index vms_free has, and heartbeats are looked up one by one: no plan may walk over all machines.
CREATE OR REPLACE FUNCTION free_machines(p_pool text, p_number bigint) RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
    fresh_since timestamptz := clock() - fresh_for();
BEGIN
    RETURN ARRAY(
        SELECT v.id FROM vms v WHERE v.pool = p_pool AND is_free(v, (SELECT h.seen_at FROM vm_heartbeats h WHERE h.vm_id = v.id), fresh_since)
        ORDER BY v.updated_at, v.id LIMIT p_number FOR UPDATE SKIP LOCKED);
END $$;

-- To how many machines of the pool can be given now: of those who wait up to p_until (everybody, when it is null), to as many as
-- machines are free, at most 500 so that nobody waits long for the caller; to nobody while the pool is paused or rests.
CREATE OR REPLACE FUNCTION places_to_serve(p_pool text, p_until uuid) RETURNS integer LANGUAGE plpgsql STABLE AS $$
DECLARE
    people integer := (
        SELECT count(*) FROM (
            SELECT FROM leases l WHERE l.pool = p_pool AND l.status = 'queued' AND NOT l.passed_over
            AND l.place <= coalesce((SELECT place FROM leases WHERE id = p_until), l.place) LIMIT 500) AS those
        WHERE EXISTS (SELECT FROM vms v WHERE v.pool = p_pool AND NOT v.draining AND v.status = 'available'));
BEGIN
    IF people = 0 OR (SELECT paused FROM pools WHERE name = p_pool) THEN
        RETURN 0;
    END IF;
    RETURN least(room_while_failing(p_pool), count_free(p_pool, people));
END $$;

-- Locks whoever is next in the pool, at most so many, as far as quotas and budget go.
CREATE OR REPLACE FUNCTION next_to_serve(p_pool text, p_number integer) RETURNS uuid[] LANGUAGE plpgsql AS $$
DECLARE
    waiting uuid[];
    locked  text[];
    this    record;
BEGIN
    SELECT p.is_budgeted, EXISTS (
        SELECT FROM leases g WHERE g.pool = p.name AND g.status = 'queued' AND g.group_name IS NOT NULL) AS is_shared
    INTO this FROM pools p WHERE p.name = p_pool;
    IF this.is_budgeted OR this.is_shared THEN
        locked := lock_for_serving(ARRAY[p_pool]);
    END IF;
    waiting := CASE WHEN this.is_shared THEN next_in_queue(p_pool, p_number, locked) ELSE ARRAY(
        SELECT l.id FROM leases l WHERE l.pool = p_pool AND l.status = 'queued' AND NOT l.passed_over
        ORDER BY l.place LIMIT p_number FOR UPDATE SKIP LOCKED) END;
    RETURN CASE WHEN this.is_budgeted THEN within_budget(p_pool, waiting) ELSE waiting END;
END $$;

-- Gives free machines of the pool to those who wait, in their order, to as many as wait up to p_until (everybody, when it is null).
-- Returns how many were served.
CREATE OR REPLACE FUNCTION serve_queue(p_pool text, p_until uuid DEFAULT NULL) RETURNS integer LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    people   integer := 0;
    waiting  uuid[];
    machines integer[];
BEGIN
    IF EXISTS (SELECT FROM leases l WHERE l.pool = p_pool AND l.status = 'queued') THEN
        people := places_to_serve(p_pool, p_until);
    END IF;
    IF people = 0 THEN
        RETURN 0;
    END IF;
    waiting := next_to_serve(p_pool, people);
    machines := free_machines(p_pool, cardinality(waiting));
    IF cardinality(machines) > 0 THEN
        UPDATE vms v SET status = 'in-use', lease_id = pair.lease FROM unnest(machines, waiting) AS pair (vm, lease)
        WHERE v.id = pair.vm;
    END IF;
    RETURN cardinality(machines);
END $$;

-- The same in each of these pools.
CREATE OR REPLACE FUNCTION serve_queues(p_pools text[]) RETURNS bigint LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF cardinality(p_pools) > 1 THEN
        PERFORM lock_for_serving(p_pools);
    END IF;
    RETURN (SELECT coalesce(sum(serve_queue(name)), 0) FROM unnest(p_pools) AS p (name));
END $$;

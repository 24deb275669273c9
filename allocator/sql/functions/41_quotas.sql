-- Quotas: how many machines a group may have, over all pools and in one.

-- How many machines of the pool (null: of all pools) a group has; those of no group are one together.
CREATE OR REPLACE FUNCTION machines_of(p_pool text, p_group text) RETURNS bigint LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF p_group IS NOT NULL THEN
        RETURN (SELECT count(*) FROM leases l WHERE l.group_name = p_group AND l.live AND l.vm_id IS NOT NULL AND l.pool = coalesce(p_pool, l.pool));
    END IF;
    RETURN (SELECT count(*) FROM leases l WHERE l.live AND l.vm_id IS NOT NULL AND l.pool = p_pool AND l.group_name IS NULL AND l.kind <> 'hold');
END $$;

-- How many more machines of the pool a group may have; null: as many as there are.
CREATE OR REPLACE FUNCTION room_of(p_pool text, p_group text) RETURNS bigint LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT least(g.max_live - machines_of(NULL, g.name), s.max_live - machines_of(p_pool, g.name))
    FROM groups g LEFT JOIN shares s ON s.pool = p_pool AND s.group_name = g.name WHERE g.name = p_group;
$$;

-- Whether there is a limit to what the group may have of the pool.
CREATE OR REPLACE FUNCTION has_quota(p_pool text, p_group text) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM groups WHERE name = p_group AND max_live IS NOT NULL)
        OR EXISTS (SELECT FROM shares WHERE pool = p_pool AND group_name = p_group AND max_live IS NOT NULL);
$$;

-- What a group has of what it may have: biology has 10 of its 10 machines; null where nothing limits it.
CREATE OR REPLACE FUNCTION quota_in_words(p_pool text, p_group text) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT p_group || ' has ' || string_agg(format('%s of its %s%s', n, counted(of_them, 'machine'), ' in pool ' || pool), ' and ' ORDER BY pool NULLS FIRST) FROM (
        SELECT NULL AS pool, g.max_live AS of_them, machines_of(NULL, g.name) AS n FROM groups g WHERE g.name = p_group
        UNION ALL SELECT s.pool, s.max_live, machines_of(s.pool, s.group_name) FROM shares s WHERE s.group_name = p_group AND s.pool = p_pool) AS limits
    WHERE of_them IS NOT NULL;
$$;

-- Locks the leases that may follow a group: whoever moves one has it before the group's limit.
CREATE OR REPLACE FUNCTION lock_followers() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM FROM leases WHERE live AND group_name IS NOT NULL ORDER BY lower(email) COLLATE "C", id FOR UPDATE;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER group_lock_trigger BEFORE DELETE OR UPDATE OF name ON groups FOR EACH STATEMENT EXECUTE FUNCTION lock_followers();

-- A group that has another name, or is gone: its live leases count as what it is now, or as nobody's. What is over keeps its name.
CREATE OR REPLACE FUNCTION follow_groups() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    UPDATE leases SET group_name = CASE TG_OP WHEN 'UPDATE' THEN NEW.name END WHERE live AND group_name = OLD.name;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER group_follow_delete_trigger AFTER DELETE ON groups FOR EACH ROW EXECUTE FUNCTION follow_groups();
CREATE OR REPLACE TRIGGER group_follow_update_trigger AFTER UPDATE OF name ON groups
    FOR EACH ROW WHEN (NEW.name <> OLD.name) EXECUTE FUNCTION follow_groups();

-- Whoever sets another limit need not say since when it holds.
CREATE OR REPLACE FUNCTION stamp_limit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.since := public.clock();
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER group_stamp_trigger BEFORE UPDATE OF max_live ON groups
    FOR EACH ROW WHEN (NEW.max_live IS DISTINCT FROM OLD.max_live) EXECUTE FUNCTION stamp_limit();
CREATE OR REPLACE TRIGGER share_stamp_trigger BEFORE UPDATE OF max_live ON shares
    FOR EACH ROW WHEN (NEW.max_live IS DISTINCT FROM OLD.max_live) EXECUTE FUNCTION stamp_limit();

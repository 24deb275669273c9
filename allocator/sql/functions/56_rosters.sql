-- Rosters: who is in which group. People are known by their e-mail addresses, in upper or lower case, and are in one group at most.

-- The address as it is kept: without spaces around it, its domain in lower case; what is before the @ stays as it was typed.
CREATE OR REPLACE FUNCTION tidy_email(p_email text) RETURNS text LANGUAGE sql IMMUTABLE
RETURN coalesce(substring(btrim(p_email) FROM '^.*@'), '') || lower(substring(btrim(p_email) FROM '[^@]*$'));

-- The group of that name, or the refusal that says which there are.
CREATE OR REPLACE FUNCTION group_named(p_name text) RETURNS groups LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    this groups;
BEGIN
    SELECT * INTO this FROM groups WHERE name = p_name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no group %', p_name USING ERRCODE = 'LL005',
            HINT = coalesce((SELECT 'Groups: ' || string_agg(name, ', ' ORDER BY name) FROM groups), 'Make it: lablink groups add ' || p_name);
    END IF;
    RETURN this;
END $$;

-- Makes these people members, those of other groups too; with p_replace nobody else stays one. Says how many came, how many of them
-- from another group, how many were there already, and how many had to go.
CREATE OR REPLACE FUNCTION add_members(
    p_group text, p_emails text[], p_replace boolean DEFAULT false,
    OUT added bigint, OUT moved bigint, OUT already bigint, OUT removed bigint) LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM group_named(p_group);
    PERFORM FROM groups WHERE name = p_group FOR NO KEY UPDATE;
    WITH listed AS (
        SELECT DISTINCT ON (lower(tidy_email(email))) tidy_email(email) AS email FROM unnest(p_emails) AS email
    ), known AS MATERIALIZED (
        SELECT l.email, m.group_name FROM listed l LEFT JOIN members m ON lower(m.email) = lower(l.email)
    ), gone AS (
        DELETE FROM members m WHERE p_replace AND m.group_name = p_group AND lower(m.email) NOT IN (SELECT lower(email) FROM listed)
        RETURNING true
    ), come AS (
        UPDATE members m SET group_name = p_group, join_code = NULL FROM known k
        WHERE lower(m.email) = lower(k.email) AND k.group_name <> p_group RETURNING true
    ), new AS (
        INSERT INTO members (email, group_name) SELECT email, p_group FROM known WHERE group_name IS NULL ORDER BY lower(email) RETURNING true
    )
    SELECT (SELECT count(*) FROM new), (SELECT count(*) FROM come), (SELECT count(*) FROM known WHERE group_name = p_group),
           (SELECT count(*) FROM gone) INTO added, moved, already, removed;
END $$;

-- Takes these people out of a group. Leases that they have go on. Returns how many were in it.
CREATE OR REPLACE FUNCTION remove_members(p_group text, p_emails text[]) RETURNS bigint LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    removed bigint;
BEGIN
    PERFORM group_named(p_group);
    DELETE FROM members WHERE group_name = p_group AND lower(email) IN (SELECT lower(tidy_email(email)) FROM unnest(p_emails) AS email);
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END $$;

-- Whoever is listed twice in the same group, as by the same file again, is there once. Another group's member is not moved by chance.
CREATE OR REPLACE FUNCTION guard_member() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    has text;
BEGIN
    NEW.email := tidy_email(NEW.email);
    IF TG_OP = 'UPDATE' THEN
        RETURN NEW;
    END IF;
    IF position('@' IN NEW.email) > 0 THEN  -- else there is worse to say
        PERFORM group_named(NEW.group_name);
    END IF;
    SELECT group_name INTO has FROM members WHERE lower(email) = lower(NEW.email);
    IF has = NEW.group_name THEN
        RETURN NULL;
    ELSIF has IS NOT NULL THEN
        RAISE EXCEPTION 'this person is in group % already, and is in one at a time', has USING ERRCODE = 'LL003',
            HINT = format('Move them: UPDATE members SET group_name = %L WHERE lower(email) = …; or: lablink groups add %s E-MAIL',
                          NEW.group_name, NEW.group_name);
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER member_guard_trigger BEFORE INSERT OR UPDATE OF email ON members
    FOR EACH ROW EXECUTE FUNCTION guard_member();

-- A group that there is; the hint names those.
CREATE OR REPLACE FUNCTION guard_real_group() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM group_named(NEW.group_name);
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER member_real_group_trigger BEFORE UPDATE OF group_name ON members
    FOR EACH ROW EXECUTE FUNCTION guard_real_group();
CREATE OR REPLACE TRIGGER share_real_group_trigger BEFORE INSERT OR UPDATE OF group_name ON shares
    FOR EACH ROW EXECUTE FUNCTION guard_real_group();
CREATE OR REPLACE TRIGGER share_real_pool_trigger BEFORE INSERT OR UPDATE OF pool ON shares
    FOR EACH ROW EXECUTE FUNCTION guard_vm_pool();
CREATE OR REPLACE TRIGGER join_code_real_group_trigger BEFORE INSERT OR UPDATE OF group_name ON join_codes
    FOR EACH ROW EXECUTE FUNCTION guard_real_group();

-- One event for each of these groups, which stand there as often as people came or went: the history says how many, never who.
CREATE OR REPLACE FUNCTION record_people(p_kind text, p_groups text[]) RETURNS void LANGUAGE sql
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT record_event(p_kind, NULL, NULL, NULL, jsonb_build_object('group', name, 'people', count(*)))
    FROM unnest(p_groups) AS name GROUP BY name;
$$;

CREATE OR REPLACE FUNCTION record_members() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM record_people('group.joined', ARRAY(SELECT group_name FROM came));
    ELSIF TG_OP = 'DELETE' THEN
        PERFORM record_people('group.left', ARRAY(SELECT group_name FROM went));
    ELSE
        PERFORM record_people('group.left', ARRAY(
            SELECT group_name FROM (SELECT email, group_name FROM went EXCEPT SELECT email, group_name FROM came) AS gone));
        PERFORM record_people('group.joined', ARRAY(
            SELECT group_name FROM (SELECT email, group_name FROM came EXCEPT SELECT email, group_name FROM went) AS new));
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER member_join_trigger AFTER INSERT ON members
    REFERENCING NEW TABLE AS came FOR EACH STATEMENT EXECUTE FUNCTION record_members();
CREATE OR REPLACE TRIGGER member_move_trigger AFTER UPDATE ON members
    REFERENCING OLD TABLE AS went NEW TABLE AS came FOR EACH STATEMENT EXECUTE FUNCTION record_members();
CREATE OR REPLACE TRIGGER member_leave_trigger AFTER DELETE ON members
    REFERENCING OLD TABLE AS went FOR EACH STATEMENT EXECUTE FUNCTION record_members();
CREATE OR REPLACE TRIGGER member_truncate_trigger BEFORE TRUNCATE ON members
    FOR EACH STATEMENT EXECUTE FUNCTION delete_before_truncate();

-- The history says which groups there are.
CREATE OR REPLACE FUNCTION record_group() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' OR TG_OP = 'UPDATE' AND NEW.name <> OLD.name THEN
        PERFORM record_event('group.removed', NULL, NULL, NULL, jsonb_build_object('group', OLD.name));
    END IF;
    IF TG_OP = 'INSERT' OR TG_OP = 'UPDATE' AND NEW.name <> OLD.name THEN
        PERFORM record_event('group.added', NULL, NULL, NULL, jsonb_build_object('group', NEW.name));
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER group_record_trigger AFTER INSERT OR DELETE OR UPDATE OF name ON groups
    FOR EACH ROW EXECUTE FUNCTION record_group();
CREATE OR REPLACE TRIGGER group_truncate_trigger BEFORE TRUNCATE ON groups
    FOR EACH STATEMENT EXECUTE FUNCTION delete_before_truncate();

-- Join codes: whoever has one becomes a member of its group with their first request. Only the SHA-256 of a code is here.

-- Makes a code good, at most for so many people (null: any number) and within these times (null: from now on). Returns its number.
CREATE OR REPLACE FUNCTION add_join_code(p_group text, p_code_sha256 bytea, p_max_people integer, p_opens_at timestamptz, p_closes_at timestamptz)
RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    number bigint;
BEGIN
    PERFORM group_named(p_group);
    INSERT INTO join_codes (group_name, code_sha256, max_people, opens_at, closes_at)
    VALUES (p_group, p_code_sha256, p_max_people, coalesce(p_opens_at, clock()), p_closes_at) RETURNING id INTO number;
    RETURN number;
END $$;

-- The group's codes are worth nothing from now on; who came with one stays. Returns how many there were.
CREATE OR REPLACE FUNCTION revoke_join_codes(p_group text) RETURNS bigint LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    revoked bigint;
BEGIN
    PERFORM group_named(p_group);
    DELETE FROM join_codes WHERE group_name = p_group;
    GET DIAGNOSTICS revoked = ROW_COUNT;
    RETURN revoked;
END $$;

-- Makes this person a member of the group that the code is for. Whatever is wrong with it, the refusal is the same: who guesses learns
-- nothing. Who is a member already is not counted again; who is one of another group is not moved, for anybody could type their address. Returns the address.
CREATE OR REPLACE FUNCTION join_group(p_email text, p_code_sha256 bytea) RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    code join_codes;
    has  text := (SELECT group_name FROM members WHERE lower(email) = lower(p_email));
BEGIN
    SELECT * INTO code FROM join_codes WHERE code_sha256 = p_code_sha256;
    IF code.group_name = has THEN
        RETURN p_email;
    END IF;
    IF code.max_people IS NOT NULL THEN  -- they are counted, one person after the other
        SELECT * INTO code FROM join_codes WHERE id = code.id FOR NO KEY UPDATE;
    END IF;
    IF has IS NOT NULL OR code.id IS NULL OR clock() < code.opens_at OR clock() >= code.closes_at
       OR (SELECT count(*) FROM members WHERE join_code = code.id) >= code.max_people THEN
        RAISE EXCEPTION 'this join code lets nobody in' USING ERRCODE = 'LL015',
            HINT = 'It is not known, not open now or used up, or this person is of another group.';
    END IF;
    INSERT INTO members (email, group_name, join_code) VALUES (p_email, code.group_name, code.id) ON CONFLICT DO NOTHING;
    RETURN p_email;
END $$;

-- The history says which group can be joined by code, how often, and until when; never the code.
CREATE OR REPLACE FUNCTION record_join_code() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    code join_codes := CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    PERFORM record_event(CASE WHEN TG_OP = 'DELETE' THEN 'code.revoked' ELSE 'code.opened' END, NULL, NULL, NULL, jsonb_build_object(
        'group', code.group_name, 'code', code.id, 'max_people', code.max_people, 'opens', code.opens_at, 'closes', code.closes_at));
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER join_code_record_trigger AFTER INSERT OR UPDATE OR DELETE ON join_codes
    FOR EACH ROW EXECUTE FUNCTION record_join_code();
CREATE OR REPLACE TRIGGER join_code_truncate_trigger BEFORE TRUNCATE ON join_codes
    FOR EACH STATEMENT EXECUTE FUNCTION delete_before_truncate();

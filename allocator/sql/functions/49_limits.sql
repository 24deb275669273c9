-- Limits: who may ask in a pool, how often, and of which group.

-- The group of the person; null for none.
CREATE OR REPLACE FUNCTION group_of(p_email text) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT m.group_name FROM members m WHERE lower(m.email) = lower(p_email);
$$;

-- The seat of a person's next lease in the pool: the first that is free of those of the pool, or of all pools in which each may have
-- one lease. Whoever has as many as they may, or more since that was lowered, is told the newest's, which is taken.
CREATE OR REPLACE FUNCTION free_seat(p_pool text, p_email text) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    WITH mine AS MATERIALIZED (
        SELECT l.seat, l.place, CASE p.per_person WHEN 1 THEN o.per_person = 1 ELSE o.name = p.name END AS counts
        FROM pools p, leases l JOIN pools o ON o.name = l.pool
        WHERE p.name = p_pool AND l.live AND position('@' IN l.email) > 0 AND lower(l.email) = lower(p_email)
    )
    SELECT CASE WHEN (SELECT count(*) FROM mine m WHERE m.counts) >= p.per_person
        THEN (SELECT m.seat FROM mine m WHERE m.counts ORDER BY m.place DESC LIMIT 1)
        ELSE (SELECT s.seat FROM generate_series(1, 1 + (SELECT count(*) FROM mine)) AS n,
                     LATERAL (SELECT CASE WHEN p.per_person > 1 THEN p.name || '/' || n WHEN n = 1 THEN '' ELSE '/' || n END) AS s (seat)
              WHERE s.seat NOT IN (SELECT m.seat FROM mine m) ORDER BY n LIMIT 1) END
    FROM pools p WHERE p.name = p_pool;
$$;

COMMENT ON COLUMN leases.seat IS 'Which of their person''s live leases it is; empty for the first in all pools where each may have one.';

-- Whether the seat is one of as many as a person may have in the pool: as no two leases have one, whoever sits in these is not over.
CREATE OR REPLACE FUNCTION is_within(this pools, p_seat text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN this.per_person = 1 THEN p_seat = ''
                WHEN p_seat ~ ('^' || this.name || '/[0-9]{1,10}$') THEN split_part(p_seat, '/', 2)::bigint <= this.per_person
                ELSE false END
$$;

-- The seat of the next lease of a person who has others live. Where a limit was changed since those were opened, their seats do not say
-- how many they are: they are locked, so that none ends and is counted by nobody else before this transaction is over. Null when
-- somebody is at one of them: that request is to be made again. It waits for nobody.
CREATE OR REPLACE FUNCTION seat_beside(p_pool text, p_email text) RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    held uuid[];
    this record;
BEGIN
    LOOP
        SELECT max(s.seat) AS seat, bool_and(is_within(p, s.seat) AND (l.id IS NULL OR is_within(o, l.seat))) AS is_within,
               bool_and(l.id = ANY (held)) AS is_held INTO this
        FROM pools p CROSS JOIN LATERAL (SELECT free_seat(p.name, p_email) AS seat OFFSET 0) AS s
             LEFT JOIN (leases l JOIN pools o ON o.name = l.pool) ON l.live AND position('@' IN l.email) > 0 AND lower(l.email) = lower(p_email)
        WHERE p.name = p_pool;
        EXIT WHEN this.is_within OR held IS NOT NULL;
        held := ARRAY(SELECT id FROM leases WHERE live AND position('@' IN email) > 0 AND lower(email) = lower(p_email)
                      FOR NO KEY UPDATE SKIP LOCKED);
    END LOOP;
    RETURN CASE WHEN this.is_within OR this.is_held THEN this.seat END;
END $$;

-- Who asks by hand in psql, or lends a machine, says no seat.
CREATE OR REPLACE FUNCTION seat_by_hand() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    NEW.seat := seat_beside(NEW.pool, NEW.email);
    IF NEW.seat IS NULL THEN
        RAISE EXCEPTION 'another lease of this person is changing at this moment' USING ERRCODE = 'serialization_failure', HINT = 'Try again.';
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER lease_seat_trigger BEFORE INSERT ON leases
    FOR EACH ROW WHEN (session_user = current_user AND NEW.seat = '' AND position('@' IN NEW.email) > 0
                       AND NEW.status IN ('queued', 'assigned', 'claimed', 'active')) EXECUTE FUNCTION seat_by_hand();

-- Whether nothing is in the way of one more lease of this person in the pool: they have none, and did not ask the same before.
CREATE OR REPLACE FUNCTION opens_a_lease(p_email text, p_pool text, p_idempotency_sha256 bytea) RETURNS boolean LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    RETURN EXISTS (SELECT FROM request_before(p_email, p_pool, p_idempotency_sha256, NULL) b WHERE b.refused = '40001');
END $$;

-- Why the limits of a pool refuse a request that would open a lease: it is for members (LL014), or its budget allows only p_affordable
-- leases more and this is the p_nth that asks (LL013, or 40001 when those before it may not need theirs). Null where they do not.
CREATE OR REPLACE FUNCTION refusal_by_limits(p_pool text, p_access text, p_group text, p_affordable bigint, p_nth bigint)
RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT CASE
        WHEN p_access = 'members' AND NOT EXISTS (SELECT FROM shares WHERE pool = p_pool AND group_name = p_group) THEN 'LL014'
        WHEN p_affordable <= 0 THEN 'LL013' WHEN p_affordable < p_nth THEN '40001' END
$$;

-- Tells whoever lends machines by hand that they go beyond what a group or a budget allows.
CREATE OR REPLACE FUNCTION say_what_is_over(p_vms integer[]) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    said text;
BEGIN
    FOR said IN
        SELECT DISTINCT format('Group %s has %s more than it may have.', l.group_name, counted(0 - room_of(l.pool, l.group_name), 'machine'))
        FROM leases l WHERE l.vm_id = ANY (p_vms) AND l.live AND room_of(l.pool, l.group_name) < 0
        UNION
        SELECT format('Pool %s goes beyond its budget. ', p.name) || budget_in_words(p.name) FROM pools p, costs(p) AS c
        WHERE p.is_budgeted AND p.budget < c.committed AND p.name IN (SELECT v.pool FROM vms v WHERE v.id = ANY (p_vms))
    LOOP
        RAISE NOTICE '%', said;
    END LOOP;
END $$;

-- What keeps people from asking in a pool: that it is for members, or has a budget.
CREATE OR REPLACE FUNCTION why_limits(p_pool text) RETURNS TABLE (what text, holds boolean, detail text) LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT 'everybody may ask', false, 'who is of a group that has a share in it may: '
        || coalesce((SELECT string_agg(s.group_name, ', ' ORDER BY s.group_name) FROM shares s WHERE s.pool = p_pool), 'there is none')
    FROM pools WHERE name = p_pool AND access = 'members'
    UNION ALL
    SELECT 'its budget allows another lease', c.committed + c.one_lease <= p.budget, budget_in_words(p.name)
    FROM pools p CROSS JOIN LATERAL costs(p) AS c WHERE p.name = p_pool AND p.is_budgeted
$$;

-- What of that everybody may read: neither the groups nor amounts, and of a budget only that it is used up.
CREATE OR REPLACE FUNCTION open_limits(p_pool text) RETURNS TABLE (what text, holds boolean, detail text) LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT 'everybody may ask', false, 'who is of a group that has a share in it may' FROM pools WHERE name = p_pool AND access = 'members'
    UNION ALL
    SELECT 'its budget allows another lease', false, 'this month''s is spent or promised; the next month begins in ' || until(month_after(p))
    FROM pools p CROSS JOIN LATERAL costs(p) AS c WHERE p.name = p_pool AND p.is_budgeted AND c.committed + c.one_lease > p.budget
$$;

-- Whether quota and budget let a lease that waits have a machine; nothing where there are none.
CREATE OR REPLACE FUNCTION why_held_back(lease leases, p_held_back text) RETURNS TABLE (what text, holds boolean, detail text) LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT 'its group may have another machine', p_held_back IS NULL, words
    FROM quota_in_words(lease.pool, lease.group_name) AS words WHERE words IS NOT NULL;
    IF EXISTS (SELECT FROM pools WHERE name = lease.pool AND is_budgeted) THEN
        RETURN QUERY SELECT 'the budget of its pool allows it', lease.id = ANY (affordable_queue(lease.pool, lease.id)), budget_in_words(lease.pool);
    END IF;
END $$;

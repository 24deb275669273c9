-- Money: what the leases of a pool cost in a calendar month of its time zone, and whether its budget allows more.

-- When the month of the pool began that it is now.
CREATE OR REPLACE FUNCTION month_of(this pools) RETURNS timestamptz LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT date_trunc('month', clock() AT TIME ZONE this.time_zone) AT TIME ZONE this.time_zone;
$$;

-- When it is over.
CREATE OR REPLACE FUNCTION month_after(this pools) RETURNS timestamptz LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT (date_trunc('month', clock() AT TIME ZONE this.time_zone) + interval '1 month') AT TIME ZONE this.time_zone;
$$;

-- For how many seconds between these moments the lease had a machine; null, if it never had one. What it had of machines that it lost
-- counts as if it had been right before it had its last one.
CREATE OR REPLACE FUNCTION lent_within(lease leases, p_from timestamptz, p_till timestamptz) RETURNS numeric LANGUAGE sql STABLE AS $$
SELECT CASE WHEN lease.assigned_at IS NOT NULL THEN greatest(0, extract(epoch FROM
    least(CASE WHEN lease.vm_id IS NULL THEN lease.turn_at ELSE coalesce(lease.ended_at, public.clock()) END, p_till)
    - greatest(coalesce(lease.turn_at, lease.assigned_at) - make_interval(secs => lease.lent_seconds), p_from))) END
$$;

-- What leases of the pool cost this month so far, each while it had a machine; what those that have one (lent) and those that wait may
-- cost yet; all of that (committed); and a lease in full. A lease without an end costs as it goes.
CREATE OR REPLACE FUNCTION costs(
    this pools, OUT spent numeric, OUT lent numeric, OUT waiting numeric, OUT committed numeric, OUT one_lease numeric)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
    WITH began AS MATERIALIZED (SELECT month_of(this) AS at), those AS (
        SELECT lent_within(l, (SELECT at FROM began), clock()) AS so_far, NULL::numeric AS lent, NULL::numeric AS waiting FROM leases l
        WHERE l.pool = this.name AND NOT l.live AND l.assigned_at IS NOT NULL AND l.ended_at > (SELECT at FROM began)
        UNION ALL
        SELECT lent_within(l, (SELECT at FROM began), clock()), CASE WHEN l.vm_id IS NOT NULL THEN extract(epoch FROM l.expires_at - clock()) END,
               CASE WHEN l.status = 'queued' THEN coalesce(l.left_seconds, this.lease_seconds) END
        FROM leases l WHERE l.pool = this.name AND l.live
    ), sums AS (
        SELECT round(coalesce(sum(so_far), 0) * h.price / 3600, 4) AS spent, round(coalesce(sum(greatest(0, t.lent)), 0) * h.price / 3600, 4) AS lent,
               round(coalesce(sum(t.waiting), 0) * h.price / 3600, 4) AS waiting, h.price * this.lease_seconds / 3600 AS one_lease
        FROM (SELECT coalesce(this.price_per_hour, 0) AS price) AS h LEFT JOIN those t ON true GROUP BY h.price
    )
    SELECT s.spent, s.lent, s.waiting, s.spent + s.lent + s.waiting, s.one_lease FROM sums s;
$$;

-- Each pool that has a price, with its month: what was spent, what leases that are live may cost yet, and of how much.
CREATE OR REPLACE VIEW pool_spending AS
SELECT p.name AS pool, round(c.spent, 2) AS spent, round(c.lent + c.waiting, 2) AS promised, p.budget, p.currency, p.price_per_hour,
       month_of(p) AS month_began, month_after(p) AS month_ends
FROM pools p CROSS JOIN LATERAL costs(p) AS c WHERE p.price_per_hour IS NOT NULL ORDER BY p.name <> 'default', p.name;
COMMENT ON VIEW pool_spending IS 'What the leases of each pool cost this month, and may cost yet, of its budget.';

-- The same of one pool in words, for whoever is refused.
CREATE OR REPLACE FUNCTION budget_in_words(p_pool text) RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    RETURN (
        SELECT format('Of %s %s for this month %s are spent, and leases that are open now may cost %s more. The next month begins in %s.',
                      s.budget, s.currency, s.spent, s.promised, until(s.month_ends)) FROM pool_spending s WHERE s.pool = p_pool);
END $$;

-- Locks those of the pools that have a budget, until leases are opened there for these people. Everybody locks machines and leases first,
-- then pools, then groups: leases that the people have are what an INSERT might wait for.
CREATE OR REPLACE FUNCTION lock_budgets(p_pools text[], p_emails text[]) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM FROM leases WHERE live AND position('@' IN email) > 0 AND lower(email) = ANY (ARRAY(SELECT lower(each) FROM unnest(p_emails) AS each))
    ORDER BY lower(email) COLLATE "C", id FOR UPDATE;
    PERFORM FROM pools WHERE name = ANY (p_pools) AND is_budgeted ORDER BY name FOR NO KEY UPDATE;
END $$;

-- How many leases more the pool's budget allows, counted up to a thousand million; null: as many as come. The pool is locked.
CREATE OR REPLACE FUNCTION affordable(p_pool text) RETURNS bigint LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT floor(least((p.budget - c.committed) * 3600 / (p.price_per_hour * p.lease_seconds), 1000000000))::bigint
    FROM pools p CROSS JOIN LATERAL costs(p) AS c WHERE p.name = p_pool AND p.is_budgeted
$$;

-- Those of the leases, which wait, for which there is money: as many from the first on as the budget allows, and all that lost a
-- machine, for what they may cost yet was promised. The pool is locked.
CREATE OR REPLACE FUNCTION within_budget(p_pool text, p_leases uuid[]) RETURNS uuid[] LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    this  pools;
    costs record;
BEGIN
    SELECT * INTO this FROM pools WHERE name = p_pool;
    costs := costs(this);
    IF costs.committed <= this.budget THEN
        RETURN p_leases;
    END IF;
    RETURN ARRAY(
        SELECT id FROM (
            SELECT those.id, those.n, l.moves, sum(coalesce(l.left_seconds, this.lease_seconds)) OVER (ORDER BY those.n) AS seconds
            FROM unnest(p_leases) WITH ORDINALITY AS those (id, n) JOIN leases l ON l.id = those.id) AS sums
        WHERE moves > 0 OR seconds * this.price_per_hour / 3600 <= this.budget - costs.spent - costs.lent ORDER BY n);
END $$;

-- Whether the budget keeps whoever is next in the pool waiting: it was lowered, or the price raised, while they waited.
CREATE OR REPLACE FUNCTION is_spent(p_pool text) RETURNS boolean LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM pools p, costs(p) AS c WHERE p.name = p_pool AND p.is_budgeted AND p.budget < c.spent + c.lent + least(c.waiting, c.one_lease))
      AND NOT EXISTS (
        SELECT FROM queue_places q JOIN leases l ON l.id = q.id WHERE q.pool = p_pool AND q.held_back IS NULL AND l.moves > 0);
END $$;

-- Refuses to make a lease longer, to then, where the budget does not allow it. The pool is locked.
CREATE OR REPLACE FUNCTION refuse_beyond_budget(lease leases, p_until timestamptz) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM pools p, costs(p) AS c WHERE p.name = lease.pool AND p.is_budgeted AND p.budget < c.committed
               + p.price_per_hour * extract(epoch FROM p_until - lease.expires_at) / 3600) THEN
        RAISE EXCEPTION 'the budget of pool % does not allow it', lease.pool USING ERRCODE = 'LL013', HINT = budget_in_words(lease.pool);
    END IF;
END $$;

-- Says once a month of each pool that its budget is nearly used up: four fifths of it are spent or promised (80), or no lease more
-- fits in (100). Returns how often it said so.
CREATE OR REPLACE FUNCTION sweep_budgets() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    this record;
    n    integer := 0;
BEGIN
    IF NOT sweep_begins('budgets') THEN
        RETURN 0;
    END IF;
    FOR this IN
        SELECT *, to_char(month_began AT TIME ZONE time_zone, 'YYYY-MM') || to_char(percent, ' FM000') AS told FROM (
            SELECT s.*, p.time_zone, p.budget_told, CASE
                WHEN c.committed + c.one_lease > p.budget THEN 100
                WHEN c.committed >= 0.8 * p.budget THEN 80 END AS percent
            FROM pool_spending s JOIN pools p ON p.name = s.pool CROSS JOIN LATERAL costs(p) AS c WHERE p.is_budgeted) AS budgets
        WHERE percent IS NOT NULL ORDER BY pool
    LOOP
        CONTINUE WHEN this.told <= this.budget_told;
        UPDATE pools SET budget_told = this.told WHERE name = this.pool;
        PERFORM record_event('alert.budget', NULL, NULL, NULL, jsonb_build_object(
            'pool', this.pool, 'percent', this.percent, 'spent', this.spent, 'promised', this.promised, 'budget', this.budget,
            'currency', this.currency));
        n := n + 1;
    END LOOP;
    RETURN n;
END $$;

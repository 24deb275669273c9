-- Forecasts: how long whoever waits in a pool will wait, from how long boots and leases took there. One a pool, however many wait.

-- The moments that a forecast tells of, in seconds from then: up to a week, each a fifth further than the one before.
CREATE OR REPLACE FUNCTION forecast_moments() RETURNS integer[] LANGUAGE sql IMMUTABLE
RETURN ARRAY[0, 5, 6, 7, 9, 10, 12, 15, 18, 21, 26, 31, 37, 45, 53, 64, 77, 92, 111, 133, 160, 192, 230, 276, 331, 397, 477,
             572, 687, 824, 989, 1187, 1424, 1709, 2051, 2461, 2953, 3544, 4253, 5103, 6124, 7349, 8819, 10582,
             12699, 15239, 18286, 21944, 26332, 31599, 37918, 45502, 54603, 65523, 78628, 94353, 113224, 135869,
             163043, 195651, 234781, 281738, 338085, 405702, 486843, 584211, 604800];

-- How many seconds leases of the pool last, the shortest first: of the last 500 that ended within thirty days, and of those that last
-- still, for else the short ones would be heard of first. Of these each is taken to last as long as one that outlasted it, in turn;
-- where none did, until its time is up.
CREATE OR REPLACE FUNCTION lasted(p_pool text) RETURNS double precision[] LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    WITH ended AS MATERIALIZED (
        SELECT coalesce(array_agg(seconds ORDER BY seconds), '{}') AS those FROM (
            SELECT extract(epoch FROM l.ended_at - l.assigned_at)::double precision AS seconds FROM leases l
            WHERE l.pool = p_pool AND NOT l.live AND l.assigned_at IS NOT NULL AND l.status = 'ended' AND l.kind <> 'hold'
              AND l.ended_at > clock() - interval '30 days'
            ORDER BY l.ended_at DESC LIMIT 500) AS last
    ), lasting AS (
        SELECT extract(epoch FROM l.expires_at - l.assigned_at)::double precision AS longest, e.those,
               width_bucket(extract(epoch FROM clock() - l.assigned_at)::double precision, e.those) AS shorter,
               mod(row_number() OVER (ORDER BY l.place) * 0.618, 1) AS turn
        FROM leases l CROSS JOIN ended e
        WHERE l.pool = p_pool AND l.live AND l.expires_at > clock() AND l.kind <> 'hold' AND cardinality(e.those) > 0 LIMIT 500
    )
    SELECT coalesce(array_agg(seconds ORDER BY seconds), '{}') FROM (
        SELECT unnest(those) FROM ended
        UNION ALL SELECT coalesce(those[1 + shorter + floor(turn * (cardinality(those) - shorter))::integer], longest) FROM lasting
    ) AS all_of_them (seconds)
$$;

-- The same of boots: of the last 200.
CREATE OR REPLACE FUNCTION booted_in(p_pool text) RETURNS double precision[] LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT coalesce(array_agg(seconds ORDER BY seconds), '{}') FROM (
        SELECT b.seconds::double precision AS seconds FROM public.boots b
        WHERE b.pool = p_pool AND b.at > public.clock() - interval '30 days' ORDER BY b.at DESC LIMIT 200) AS those;
END;

-- The machines that were invited and have not come.
CREATE OR REPLACE VIEW invited_machines AS
SELECT DISTINCT i.pool, i.hostname FROM join_tokens i
WHERE i.role IS NULL AND i.missed_at IS NULL AND i.expires_at > clock()
  AND NOT EXISTS (SELECT FROM vms v WHERE v.hostname = i.hostname AND v.status <> 'retired');
COMMENT ON VIEW invited_machines IS 'Machines whose join token is good and was not used yet.';

-- The machines of the pool that boot, each with the seconds since it was started: instances of the fleet, also before anything is heard
-- of them and while Terraform makes them, and whatever has enrolled and not said hello. Of other machines nobody knows before that whether
-- anybody has started them. Whichever boots for ten minutes, and for longer than any has, is not counted on.
CREATE OR REPLACE FUNCTION booting_in(p_pool text) RETURNS TABLE (hostname text, age double precision) LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    WITH started AS (
        SELECT v.hostname, coalesce((SELECT j.started_at FROM join_tokens j WHERE j.role = v.role), v.updated_at) AS at
        FROM vms v WHERE v.pool = p_pool AND v.status = 'booting' AND NOT v.draining
        UNION ALL
        SELECT f.hostname, f.made_at FROM fleet_vms f JOIN invited_machines i ON i.hostname = f.hostname
        WHERE f.pool = p_pool AND f.wanted AND f.made_at IS NOT NULL
        UNION ALL
        SELECT f.hostname, coalesce(f.made_at, clock()) FROM fleet_vms f
        WHERE f.pool = p_pool AND f.wanted AND f.invited_at IS NULL
          AND NOT EXISTS (SELECT FROM vms v WHERE v.hostname = f.hostname AND v.status <> 'retired') AND EXISTS (
            SELECT FROM operations o WHERE o.status = 'running' AND o.kind IN ('fleet apply', 'fleet grow', 'fleet replace')
            AND coalesce(o.pool, p_pool) = p_pool AND o.started_at > clock() - interval '20 minutes')
    ), ages AS (SELECT s.hostname, extract(epoch FROM clock() - s.at)::double precision AS age FROM started s)
    SELECT a.hostname::text, a.age FROM ages a, (SELECT max(seconds) AS longest FROM unnest(booted_in(p_pool)) AS seconds) AS known
    WHERE a.age < greatest(600, known.longest)
$$;

-- For each machine of the pool that is not free how likely it is to be so within each moment. What has lasted as long as others did is
-- over as those were, few of which say little; a lease at the latest when its time is up, a boot when none took longer. Then a machine is
-- cleaned. Of more than 500 machines as many stand for all: `weight`. `doubt` is how much surer it would be if more had been seen:
-- what is wrong about few is wrong about all machines at once.
CREATE OR REPLACE FUNCTION chances(p_pool text)
RETURNS TABLE (seconds integer, chance double precision, weight double precision, doubt double precision) LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp SET plan_cache_mode = force_custom_plan AS $$
    WITH known AS MATERIALIZED (SELECT lasted(p_pool) AS leases, booted_in(p_pool) AS boots),
    busy AS (
        SELECT *, count(*) OVER () AS machines FROM (
            SELECT v.hostname, v.status, extract(epoch FROM clock() - coalesce(l.assigned_at, v.updated_at))::double precision AS age,
                   extract(epoch FROM l.expires_at - clock())::double precision + 10 AS sure
            FROM vms v LEFT JOIN leases l ON l.id = v.lease_id
            WHERE v.pool = p_pool AND NOT v.draining AND v.status IN ('cleaning', 'in-use') AND l.kind IS DISTINCT FROM 'hold'
            UNION ALL
            SELECT b.hostname, 'booting', b.age, greatest(600, k.boots[cardinality(k.boots)]) - b.age FROM known k, booting_in(p_pool) b
        ) AS each
    ), those AS MATERIALIZED (
        SELECT s.*, width_bucket(s.age, o.others) AS shorter, cardinality(o.others)::double precision AS known,
               (s.machines / least(500.0, s.machines))::double precision AS weight
        FROM (SELECT * FROM busy ORDER BY hashtext(hostname) LIMIT 500) AS s CROSS JOIN known k,
             LATERAL (SELECT CASE s.status WHEN 'booting' THEN k.boots ELSE k.leases END) AS o (others)
    ), sample AS MATERIALIZED (
        SELECT *, known - shorter + 1 AS longer,
               CASE WHEN status = 'cleaning' THEN 0 ELSE machines / greatest(1::double precision, known) END AS doubt FROM those
    )
    SELECT m.seconds, CASE
               WHEN s.status = 'cleaning' THEN least(1::double precision, m.seconds / 10::double precision)
               WHEN m.seconds >= s.sure THEN 1
               WHEN s.status = 'booting' THEN (width_bucket(s.age + m.seconds, k.boots) - s.shorter) / s.longer
               ELSE (width_bucket(s.age + greatest(0, m.seconds - 5), k.leases) - s.shorter) / s.longer END, s.weight, s.doubt
    FROM sample s CROSS JOIN known k CROSS JOIN unnest(forecast_moments()) AS m (seconds)
$$;

-- How many machines come free within each moment, with even odds and in nine of ten cases; never fewer than before. Each does so when
-- its turn of now ends, and whoever has it then gives it back, too, again and again: renewal theory, see docs/architecture.md, "How a
-- wait is foretold". later_turns: of a machine whose first turn ends at s, (t - s) / mean - (1 - cv²) / 2 by the moment t.
-- spread_of_both: what is expected, and its variance, whose parts are in this order: of the first turns; of later ones that are more where first
-- ones end early, twice, for both rise together; and of how long later ones last, where few are known of doubtful length.
CREATE OR REPLACE FUNCTION forecast(p_pool text, OUT likely double precision[], OUT sure double precision[]) LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    WITH first_turns AS MATERIALIZED (
        SELECT seconds, sum(chance * weight) AS ended, sum(weight) AS fleet, sum(chance * (1 - chance) * weight * (1 + doubt)) AS variance
        FROM chances(p_pool) GROUP BY seconds
    ), ends AS MATERIALIZED (
        SELECT seconds, ended - coalesce(lag(ended) OVER (ORDER BY seconds), 0) AS more FROM first_turns
    ), a_turn AS MATERIALIZED (
        SELECT coalesce(l.mean, p.lease_seconds) + 10 AS mean, coalesce(l.variance / nullif(l.mean, 0) ^ 2, 0) AS cv2, greatest(1, l.known) AS known
        FROM pools p, (SELECT avg(each) AS mean, var_pop(each) AS variance, count(*) AS known FROM unnest(lasted(p_pool)) AS each) AS l
        WHERE p.name = p_pool
    ), later_turns AS (
        SELECT f.seconds, t.cv2, t.known, coalesce(sum(e.more * r.n), 0) AS ended, coalesce(sum(e.more * r.n * r.n), 0) AS squares
        FROM first_turns f CROSS JOIN a_turn t LEFT JOIN ends e ON e.seconds < f.seconds, LATERAL (
            SELECT greatest(0::double precision, (f.seconds - e.seconds) / t.mean - (1 - least(1, t.cv2)) / 2) AS n) AS r
        GROUP BY f.seconds, t.cv2, t.known
    ), spread_of_both AS (
        SELECT seconds, f.ended + l.ended AS expected, greatest(0, f.variance
                   + l.squares - l.ended ^ 2 / f.fleet + 2 * l.ended * (1 - f.ended / f.fleet)
                   + l.cv2 * l.ended * (1 + l.ended / l.known)) AS variance
        FROM first_turns f JOIN later_turns l USING (seconds)
    )
    SELECT array_agg(likely ORDER BY seconds), array_agg(sure ORDER BY seconds) FROM (
        SELECT seconds, max(expected - least(1, coalesce(variance / nullif(expected, 0), 0)) / 6) OVER earlier AS likely,
               max(expected - 1.2816 * sqrt(variance)) OVER earlier AS sure
        FROM spread_of_both WINDOW earlier AS (ORDER BY seconds)) AS curves
$$;

-- A curve that does not get beyond so many machines; as it is for null.
CREATE OR REPLACE FUNCTION at_most(p_curve double precision[], p_machines integer) RETURNS double precision[] LANGUAGE sql IMMUTABLE
RETURN ARRAY(SELECT least(each, p_machines) FROM unnest(p_curve) WITH ORDINALITY AS c (each, n) ORDER BY n);

-- Where a curve passes so many machines, in seconds: between the n-th moment, at which there are fewer, and the next one.
CREATE OR REPLACE FUNCTION passed_after(p_curve double precision[], n integer, p_machines double precision) RETURNS double precision
LANGUAGE sql IMMUTABLE
RETURN (forecast_moments())[n] + ((forecast_moments())[n + 1] - (forecast_moments())[n])
    * (p_machines - p_curve[n]) / (p_curve[n + 1] - p_curve[n]);

-- In how many seconds so many machines have come free, by such a curve, which never falls; null when it does not get there. It is
-- asked for everybody who waits, so nothing here keeps it from becoming a part of the query.
CREATE OR REPLACE FUNCTION reached(p_curve double precision[], p_machines double precision) RETURNS double precision LANGUAGE sql IMMUTABLE
RETURN CASE width_bucket(p_machines - 1e-9::double precision, p_curve) WHEN 0 THEN 0 WHEN cardinality(p_curve) THEN NULL
    ELSE passed_after(p_curve, width_bucket(p_machines - 1e-9::double precision, p_curve), p_machines) END;

-- In how many seconds, counted from now, whoever is so far back in the queue has a machine, by a curve that was made at p_at.
CREATE OR REPLACE FUNCTION seconds_left(p_at timestamptz, p_curve double precision[], p_position bigint) RETURNS integer
LANGUAGE sql STABLE
RETURN CASE WHEN p_curve[cardinality(p_curve)] >= p_position::double precision - 0.5::double precision
    THEN greatest(0, ceil(reached(p_curve, p_position::double precision - 0.5::double precision)
                          - extract(epoch FROM clock() - p_at)::double precision))::integer END;

-- The groups that compete in a pool, and those of no group as one ('', as fair_queue has it): how many machines each has, how many of its people wait in
-- their turn, and how many seconds ago whoever lives still or was served within a day came, the latest first.
CREATE OR REPLACE FUNCTION competing(p_pool text)
RETURNS TABLE (name text, machines bigint, waiting bigint, arrivals double precision[]) LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    WITH those AS (
        SELECT l.group_name, l.status, l.vm_id, l.passed_over, l.created_at FROM leases l WHERE l.pool = p_pool AND l.live AND l.kind <> 'hold'
        UNION ALL
        (SELECT l.group_name, l.status, NULL, false, l.created_at FROM leases l
         WHERE l.pool = p_pool AND NOT l.live AND l.assigned_at IS NOT NULL AND l.kind <> 'hold' AND l.ended_at > clock() - interval '1 day'
         ORDER BY l.ended_at DESC LIMIT 1000)
    )
    SELECT coalesce(t.group_name, ''), count(t.vm_id), count(*) FILTER (WHERE t.status = 'queued' AND NOT t.passed_over),
           array_agg(a.age ORDER BY a.age)
    FROM those t, LATERAL (SELECT extract(epoch FROM clock() - t.created_at)::double precision AS age) AS a GROUP BY 1
$$;

-- The queue of a pool in which groups compete, and after how many machines everybody's turn comes, with even odds and in nine of ten
-- cases. Whoever comes later is before somebody of a group that has more machines, and as many are taken to come of each group as did
-- within as long a time as that one waits by the position of now: no more than its turn allows, so many as have fewer machines with
-- theirs. Whose machines come free is by chance, too; the factor is measured (tests/rehearsal/test_forecasts_hold.py).
CREATE OR REPLACE FUNCTION fair_turns(p_pool text)
RETURNS TABLE (id uuid, "position" bigint, held_back text, likely bigint, sure bigint) LANGUAGE sql STABLE SECURITY DEFINER ROWS 10
SET search_path = pg_catalog, public, pg_temp AS $$
    WITH rivals AS MATERIALIZED (SELECT *, machines + waiting AS taken FROM competing(p_pool)), line AS MATERIALIZED (
        SELECT q.*, l.moves, g.name, row_number() OVER (PARTITION BY g.name ORDER BY l.place) AS nth
        FROM fair_queue(p_pool) q JOIN leases l ON l.id = q.id, LATERAL (SELECT coalesce(l.group_name, '') AS name) AS g
    ), people AS MATERIALIZED (
        SELECT p.*, own.machines + p.nth AS machines, coalesce(reached(f.likely, p."position" - 0.5), 86400) AS seconds
        FROM line p JOIN rivals own ON own.name = p.name LEFT JOIN forecasts f ON f.pool = p_pool
    ), overtaken AS MATERIALIZED (
        SELECT p.id, p."position", p.held_back, p.nth, p."position" + coalesce((
            SELECT sum(least(width_bucket(p.seconds, r.arrivals), p.machines - 1 - r.taken))
            FROM rivals r WHERE p.machines - 1 > r.taken AND r.name <> p.name AND p.moves = 0), 0)::bigint AS likely FROM people p
    )
    SELECT o.id, o."position", o.held_back, o.likely, o.likely + CASE WHEN o.likely > o.nth THEN round(0.8 * sqrt(o.likely))::bigint ELSE 0 END
    FROM overtaken o
$$;

-- Everybody who waits, at which position, and after how many machines their turn comes: as many, where no group waits.
CREATE OR REPLACE VIEW queue_turns AS
SELECT l.pool, l.id, row_number() OVER (PARTITION BY l.pool ORDER BY l.place) AS position, NULL::text AS held_back,
       row_number() OVER (PARTITION BY l.pool ORDER BY l.place) AS likely, row_number() OVER (PARTITION BY l.pool ORDER BY l.place) AS sure
FROM leases l WHERE l.status = 'queued' AND NOT l.passed_over AND l.pool <> ALL (ARRAY(
    SELECT p.name FROM pools p WHERE EXISTS (
        SELECT FROM leases g WHERE g.pool = p.name AND g.status = 'queued' AND g.group_name IS NOT NULL)))
UNION ALL
SELECT p.name, f.id, f.position, f.held_back, f.likely, f.sure FROM (
    SELECT name FROM pools WHERE EXISTS (
        SELECT FROM leases g WHERE g.pool = name AND g.status = 'queued' AND g.group_name IS NOT NULL) OFFSET 0) AS p
CROSS JOIN LATERAL fair_turns(p.name) AS f;
COMMENT ON VIEW queue_turns IS 'As queue_places; and after how many machines each one''s turn comes, with even odds (likely) and in nine of ten cases (sure).';

-- What comes in a pool, in words: 2 machines are booting, the first ready in about 3 min; 4 leases end within 20 min. Null: nothing.
CREATE OR REPLACE FUNCTION coming_in_words(p_pool text) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT nullif(concat_ws('; ',
        (SELECT counted(count(*), 'machine') || CASE count(*) WHEN 1 THEN ' is booting' ELSE ' are booting' END
                || coalesce(CASE count(*) WHEN 1 THEN ', ready ' ELSE ', the first ready ' END || CASE
                    WHEN min(usual - age) <= 0 THEN 'any moment' WHEN min(usual - age) > 0 THEN 'in about ' || span(min(usual - age)) END, '')
         FROM booting_in(p_pool) AS b,
              (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY s) AS usual FROM unnest(booted_in(p_pool)) AS s) AS u
         HAVING count(*) > 0),
        (SELECT counted(count(*), 'machine') || CASE count(*) WHEN 1 THEN ' is' ELSE ' are' END || ' being cleaned'
         FROM vms v WHERE v.pool = p_pool AND v.status = 'cleaning' AND NOT v.draining HAVING count(*) > 0),
        (SELECT CASE count(*) FILTER (WHERE ends < clock() + interval '20 minutes')
                    WHEN 0 THEN 'the next lease ends in ' || until(min(ends)) || ' at the latest' WHEN 1 THEN '1 lease ends within 20 min'
                    ELSE format('%s leases end within 20 min', count(*) FILTER (WHERE ends < clock() + interval '20 minutes')) END
         FROM (SELECT l.expires_at AS ends FROM leases l WHERE l.live AND l.pool = p_pool AND l.vm_id IS NOT NULL AND l.expires_at IS NOT NULL) AS e
         HAVING count(*) > 0)), '');
$$;

-- Makes the forecast of each pool in which somebody waits, forgets those of others, and writes down what those are told who were
-- told nothing yet, whose pages look at once. Whom the budget keeps waiting, no machine that comes free is for.
-- Plans are made once in a session, maybe while the tables are empty: who was told is looked up one by one, whatever a planner thinks.
CREATE OR REPLACE FUNCTION sweep_forecasts() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
DECLARE
    told  integer := 0;
    hints text[];
BEGIN
    IF NOT sweep_begins('forecasts') THEN
        RETURN 0;
    END IF;
    WITH made AS (
        INSERT INTO forecasts (pool, likely, sure, because)
        SELECT p.name, at_most(f.likely, p.people), at_most(f.sure, p.people), coming_in_words(p.name)
        FROM (SELECT o.name, CASE WHEN o.is_budgeted THEN nullif(cardinality(affordable_queue(o.name)), (
                  SELECT count(*) FROM queue_places q WHERE q.pool = o.name AND q.held_back IS NULL)) END AS people
              FROM pools o WHERE somebody_waits(o.name) AND NOT o.paused) AS p, forecast(p.name) f
        WHERE p.people IS DISTINCT FROM 0 AND f.likely IS NOT NULL
        ON CONFLICT (pool) DO UPDATE SET at = clock(), likely = excluded.likely, sure = excluded.sure, because = excluded.because
        RETURNING pool
    )
    DELETE FROM forecasts WHERE pool NOT IN (SELECT pool FROM made);
    WITH untold AS MATERIALIZED (
        SELECT q.* FROM queue_turns q WHERE q.held_back IS NULL AND NOT EXISTS (SELECT FROM foretold o WHERE o.lease_id = q.id)
    ), new AS (
        INSERT INTO foretold (lease_id, likely, sure)
        SELECT u.id, clock() + make_interval(secs => t.likely), clock() + make_interval(secs => t.sure)
        FROM untold u JOIN forecasts f ON f.pool = u.pool, LATERAL (
            SELECT reached(f.likely, u.likely - 0.5) AS likely, reached(f.sure, u.sure - 0.5) AS sure) AS t
        WHERE t.sure IS NOT NULL ON CONFLICT DO NOTHING RETURNING lease_id
    )
    SELECT count(*), array_agg(lease_hint(n.lease_id, 'queued', NULL)) INTO told, hints FROM new n;
    PERFORM send_hints('lease_updates', hints);
    RETURN told;
END $$;

-- How often what was foretold held: of those who were told and then had a machine, or wait still although it was to have come.
CREATE OR REPLACE VIEW forecast_calibration AS
SELECT l.pool, count(*)::integer AS told,
       round(avg((coalesce(l.assigned_at, clock()) <= o.likely)::integer), 3) AS likely_held,
       round(avg((coalesce(l.assigned_at, clock()) <= o.sure)::integer), 3) AS sure_held
FROM foretold o JOIN leases l ON l.id = o.lease_id
WHERE o.at > clock() - interval '30 days' AND (l.assigned_at >= o.at OR l.status = 'queued' AND o.sure < clock())
GROUP BY l.pool;
COMMENT ON VIEW forecast_calibration IS 'How often the even odds and the nine of ten held, of the waits foretold in the last thirty days.';

-- The same in words, once so many waited that it says something.
CREATE OR REPLACE FUNCTION waits_held(p_told integer, p_likely_held numeric, p_sure_held numeric)
RETURNS TABLE (what text, holds boolean, detail text) LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT 'the times told of waits hold', p_sure_held >= 0.8, format(
        'of %s who waited in the last thirty days %s %% did so no longer than they were told for nine of ten cases, '
        '%s %% no longer than for even odds',
        p_told, round(100 * p_sure_held), round(100 * p_likely_held))
    WHERE p_told >= 20
$$;

-- Of one pool.
CREATE OR REPLACE FUNCTION why_forecasts(p_pool text) RETURNS TABLE (what text, holds boolean, detail text) LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT w.* FROM forecast_calibration c CROSS JOIN LATERAL waits_held(c.told, c.likely_held, c.sure_held) AS w WHERE c.pool = p_pool
$$;

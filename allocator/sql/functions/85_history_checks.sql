-- What `lablink verify` asks of the history. Each check says in words what is wrong and where; no row means that all is well.

-- The seals p_first to p_last as a chain: each is what it was, and stands on the one before it.
CREATE OR REPLACE FUNCTION broken_chain(p_first bigint, p_last bigint) RETURNS TABLE (what text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT CASE
        WHEN s.sha256 <> public.seal_sha256(s) THEN format('seal %s of %s was changed', s.seal, s.sealed_at)
        WHEN s.seal > 1 AND before.seal IS NULL THEN format('seal %s was removed', s.seal - 1)
        ELSE format('seal %s does not follow from seal %s: one of them was forged', s.seal, s.seal - 1) END
    FROM public.event_seals s LEFT JOIN public.event_seals before ON before.seal = s.seal - 1
    WHERE s.seal BETWEEN p_first AND p_last
      AND (s.sha256 <> public.seal_sha256(s) OR s.previous IS DISTINCT FROM CASE WHEN s.seal = 1 THEN '' ELSE before.sha256 END)
    ORDER BY s.seal;
END;

-- The events that the seals p_first to p_last cover, as they are now. Months that were archived are left out. Its order
-- keeps the inner query by itself, which is planned as a walk along the index for each range of ids.
CREATE OR REPLACE FUNCTION sealed_events(p_first bigint, p_last bigint) RETURNS TABLE (seal bigint, id bigint, digest bytea)
LANGUAGE sql STABLE SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT s.seal, e.id, e.digest
    FROM public.event_seals s CROSS JOIN LATERAL unnest(s.ids) AS these CROSS JOIN LATERAL (
        SELECT e.id, sha256(convert_to(public.event_line(e), 'UTF8')) AS digest FROM public.events e
        WHERE e.id >= lower(these) AND e.id < upper(these)
          AND e.at >= s.month::timestamp AT TIME ZONE 'UTC' AND e.at < (s.month + interval '1 month') AT TIME ZONE 'UTC'
        ORDER BY e.id) AS e
    WHERE s.seal BETWEEN p_first AND p_last AND NOT EXISTS (SELECT FROM public.event_archives a WHERE a.ids @> s.ids);
END;

-- Events of the seals p_first to p_last that are not what was sealed.
CREATE OR REPLACE FUNCTION broken_events(p_first bigint, p_last bigint) RETURNS TABLE (what text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH kept AS MATERIALIZED (SELECT * FROM public.sealed_events(p_first, p_last)),
    hashed AS (SELECT seal, sha256(string_agg(digest, '' ORDER BY id)) AS rows_sha256 FROM kept GROUP BY seal),
    broken AS (
        SELECT s.*, h.seal IS NULL AS nothing_left FROM public.event_seals s LEFT JOIN hashed h USING (seal)
        WHERE s.seal BETWEEN p_first AND p_last AND s.rows_sha256 IS DISTINCT FROM h.rows_sha256
          AND NOT EXISTS (SELECT FROM public.event_archives a WHERE a.ids @> s.ids)
    ), sealed AS (
        SELECT seal, id, substr(prints, 8 * row_number() OVER (PARTITION BY seal ORDER BY id)::integer - 7, 8) AS print
        FROM broken, LATERAL unnest(ids) AS these, LATERAL generate_series(lower(these), upper(these) - 1) AS id
        WHERE NOT nothing_left
    ), odd AS (
        SELECT seal, s.id, count(k.id) AS times FROM sealed s LEFT JOIN kept k USING (seal, id)
        GROUP BY seal, s.id, s.print HAVING count(k.id) <> 1 OR bool_or(substr(k.digest, 1, 8) <> s.print)
    )
    SELECT CASE times
        WHEN 0 THEN format('event %s (seal %s) is missing: it was removed, or its time was changed', id, seal)
        WHEN 1 THEN format('event %s was changed after it was sealed (seal %s)', id, seal)
        ELSE format('event %s is there %s times: it was added to after it was sealed (seal %s)', id, times, seal) END
    FROM odd
    UNION ALL
    SELECT CASE WHEN nothing_left
        THEN format('all %s events of seal %s (%s) are missing, and no archive has them', events, seal, to_char(month, 'YYYY-MM'))
        ELSE format('the events of seal %s, and the seal itself, were changed', seal) END
    FROM broken b WHERE nothing_left OR NOT EXISTS (SELECT FROM odd WHERE odd.seal = b.seal);
END;

-- Events since p_since that are outside the chain.
CREATE OR REPLACE FUNCTION unsealed_events(p_since timestamptz) RETURNS TABLE (what text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    WITH sealed AS (SELECT s.month, range_agg(s.ids) AS ids FROM public.event_seals s GROUP BY s.month),
    loose AS (
        SELECT e.id, e.at, e.id <= (SELECT settled FROM public.event_sealing) AS behind
        FROM public.events e LEFT JOIN sealed s ON s.month = public.event_month(e.at)
        WHERE e.at >= p_since AND NOT coalesce(s.ids @> e.id, false)
    )
    SELECT format('event %s of %s was added behind the chain: its neighbours had been sealed before', id, at)
    FROM loose WHERE behind
    UNION ALL
    SELECT format('%s events since %s are not sealed yet: a running service does it within seconds', count(*), min(at))
    FROM loose WHERE NOT behind AND at < public.clock() - interval '10 minutes' HAVING count(*) > 0;
END;

-- What else the history must show: its order in time since p_since, its guards, and an event for every archive.
CREATE OR REPLACE FUNCTION broken_history(p_since timestamptz) RETURNS TABLE (what text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT format('event %s is dated %s but was written after event %s of %s: it was dated back, or its transaction '
                             'was open for that long', id, at, before, before_at)
    FROM (SELECT id, at, lag(id) OVER (ORDER BY id) AS before, lag(at) OVER (ORDER BY id) AS before_at FROM public.events
          WHERE at >= p_since) e
    WHERE at < before_at - interval '1 day'
    UNION ALL
    SELECT format('anybody who owns it may change %s: its guard is off. Put it back: lablink db migrate', partition)
    FROM public.unguarded_months()
    UNION ALL
    SELECT format('%s has the trigger %s, which is not LabLink''s and may change what is written', t.tgrelid::regclass, t.tgname)
    FROM pg_inherits i JOIN pg_trigger t ON t.tgrelid = i.inhrelid
    WHERE i.inhparent = 'public.events'::regclass AND NOT t.tgisinternal AND t.tgname <> 'events_guard_trigger'
      AND (t.tgname, t.tgfoid::regproc::text, t.tgparentid <> 0) NOT IN (
          ('events_by_hand_trigger', 'guard_new_event', true))
    UNION ALL
    SELECT format('%s is said to be archived in %s, but no event tells of it', to_char(a.month, 'YYYY-MM'), a.file)
    FROM public.event_archives a
    WHERE NOT EXISTS (SELECT FROM public.events e WHERE e.kind = 'history.archived' AND e.at = a.archived_at
                      AND e.detail ->> 'sha256' = encode(a.sha256, 'hex'))
      AND NOT EXISTS (SELECT FROM public.event_archives later WHERE later.month = public.event_month(a.archived_at));
END;

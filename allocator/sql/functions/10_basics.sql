-- Words that every other file uses. All functions here can be applied again and again.
--
-- What our functions refuse, each with a HINT that says what to do:
--   LL001  stale epoch: the machine changed hands since           LL006  the join token is unknown, used or expired
--   LL002  no such machine: not enrolled, deleted or retired      LL007  the Idempotency-Key belongs to another request
--   LL003  the state machine has no such change                   LL008  nothing was claimed, or is there to claim
--   LL004  no such lease                                          LL009  the pool does not accept this command
--   LL005  no such pool, or no such group                         LL010  the hub's token is no machine's
--   LL011  the allocator is older than the database allows        LL014  the pool is for members of a group with a share in it
--   LL012  the lease is not made longer now                       LL015  the join code lets nobody in
--   LL013  the pool's budget does not allow it

-- Whether an allocator that was made for version p_version may serve this database: of this version, or of the one before, which
-- goes on while allocators are replaced one by one. One that comes before its database was migrated waits.
CREATE OR REPLACE FUNCTION check_program(p_version integer) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    this CONSTANT integer := 9;
BEGIN
    IF p_version < this - 1 THEN
        RAISE EXCEPTION 'the database is at version %, and this LabLink was made for version %', this, p_version
            USING ERRCODE = 'LL011', HINT = 'Start an allocator of the database''s version.';
    ELSIF p_version > this THEN
        RAISE EXCEPTION 'the database is at version %, and this LabLink was made for version %', this, p_version
            USING ERRCODE = 'undefined_function', HINT = 'Bring it to the newest version: lablink db migrate';
    END IF;
END $$;

-- The same as allocators of version 8 ask.
CREATE OR REPLACE FUNCTION check_version(p_version integer) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM check_program(p_version);
END $$;

-- Whom a database role stands for: the machine it was made for, by the name that outlives the role; else itself.
CREATE OR REPLACE FUNCTION known_as(p_role name) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    SELECT coalesce((SELECT v.hostname FROM public.vms v WHERE v.role = p_role), p_role);
END;

-- Who acts: the session's own role; or, where the service passes on what a machine said over the hub, the machine's. Only
-- functions that were shown the machine's token lead to anything that asks this for its rights.
CREATE OR REPLACE FUNCTION caller() RETURNS name LANGUAGE sql STABLE
RETURN CASE WHEN session_user = 'lablink_app' THEN coalesce(nullif(current_setting('lablink.machine', true), ''), session_user)::name
            ELSE session_user END;

-- Who did it, for the history: the service names its part (web, sweep, cli), a machine is its hostname, and everybody
-- else is their database role. A pooler passes on the application's name and no other setting. Nobody (NULL) while many machines
-- speak: see guard_new_event.
CREATE OR REPLACE FUNCTION actor() RETURNS text LANGUAGE sql STABLE
RETURN CASE WHEN caller() IN ('lablink', 'lablink_app')
            THEN coalesce(nullif(current_setting('lablink.actor', true), ''),
                          substring(current_setting('application_name') FROM '^lablink (web)$'), session_user)
            ELSE nullif(known_as(caller()), '*') END;

-- Seconds between two hellos of one machine: 10 s, more when the fleet is so large that 500 a second would come; over the hub
-- hundreds of them are one statement.
CREATE OR REPLACE FUNCTION hello_period() RETURNS double precision LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT greatest(10.0, c.reltuples / 500) FROM pg_catalog.pg_class c WHERE c.oid = 'public.vm_heartbeats'::regclass;
END;

-- No machine gets beyond this epoch except by steps of one, so that it can always rise once more. A thousand changes of
-- hands a second would take 30,000 years.
CREATE OR REPLACE FUNCTION highest_epoch() RETURNS bigint LANGUAGE sql IMMUTABLE
RETURN 1000000000000000;

-- A machine is fresh, so may be lent, when it said hello this recently: two periods and some slack.
CREATE OR REPLACE FUNCTION fresh_for() RETURNS interval LANGUAGE sql STABLE
RETURN make_interval(secs => 2 * hello_period() + 5);

-- A machine silent for this long is lost: three periods and more slack than any restart of PostgreSQL needs.
CREATE OR REPLACE FUNCTION lost_after() RETURNS interval LANGUAGE sql STABLE
RETURN make_interval(secs => 3 * hello_period() + 15);

-- The line without what follows --code and --pin, or looks like a code of Google's wherever it stands: what may be stored,
-- shown and searched.
CREATE OR REPLACE FUNCTION blot_out(p_line text) RETURNS text LANGUAGE sql IMMUTABLE
RETURN regexp_replace(
    regexp_replace(p_line, '(--?(?:code|pin)["''”]?[\s=]+)(?:"[^"]*"|''[^'']*''|“[^”]*”|\S+)', '\1***', 'gi'),
    '(^|[^[:alnum:]/])4/[[:alnum:]_-]{12,}', '\1***', 'g');

-- The text without what a terminal or a page would act on instead of showing it: control characters (line ends and tabs
-- stay) and marks that turn the direction of writing. Whatever a machine says about itself goes through here.
CREATE OR REPLACE FUNCTION harmless(p_text text) RETURNS text LANGUAGE sql IMMUTABLE
RETURN regexp_replace(regexp_replace(p_text, '\r\n?', E'\n', 'g'),
    '[\u0001-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]', '', 'g');

-- Appends one line to the history. No e-mail, command, code or PIN may be in p_detail.
CREATE OR REPLACE FUNCTION record_event(p_kind text, p_vm_id integer, p_hostname text, p_lease uuid, p_detail jsonb)
RETURNS void LANGUAGE sql
SET search_path = pg_catalog, public, pg_temp
BEGIN ATOMIC
    INSERT INTO public.events (actor, kind, vm_id, hostname, lease_id, detail)
    VALUES (public.actor(), p_kind, p_vm_id, p_hostname, p_lease, jsonb_strip_nulls(p_detail));
END;

-- 1 machine, 12 machines.
CREATE OR REPLACE FUNCTION counted(p_number bigint, p_thing text) RETURNS text LANGUAGE sql IMMUTABLE
RETURN format('%s %s%s', p_number, p_thing, CASE WHEN p_number <> 1 THEN 's' END);

-- A length of time as people say it.
CREATE OR REPLACE FUNCTION span(p_seconds double precision) RETURNS text LANGUAGE sql IMMUTABLE
RETURN CASE WHEN p_seconds IS NULL THEN 'an unknown time' WHEN p_seconds < 90 THEN format('%s s', greatest(0, ceil(p_seconds)))
    WHEN p_seconds < 5400 THEN format('%s min', ceil(p_seconds / 60)) WHEN p_seconds < 172800 THEN format('%s h', trim_scale(round(p_seconds::numeric / 3600, 1)))
    ELSE format('%s days', trim_scale(round(p_seconds::numeric / 86400, 1))) END;

-- The time until then, and since then.
CREATE OR REPLACE FUNCTION until(p_then timestamptz) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp
RETURN public.span(extract(epoch FROM p_then - public.clock())::double precision);

CREATE OR REPLACE FUNCTION since(p_then timestamptz) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp
RETURN public.span(extract(epoch FROM public.clock() - p_then)::double precision);

-- One NOTICE of these words a statement, however many rows it changes.
CREATE OR REPLACE FUNCTION say_once(p_words text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('lablink.said', true) IS DISTINCT FROM statement_timestamp()::text THEN
        PERFORM set_config('lablink.said', statement_timestamp()::text, true);
        RAISE NOTICE '%', p_words;
    END IF;
END $$;

-- TRUNCATE has no rows to guard or to follow, so it deletes them first.
CREATE OR REPLACE FUNCTION delete_before_truncate() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    EXECUTE format('DELETE FROM %I.%I', TG_TABLE_SCHEMA, TG_TABLE_NAME);
    RETURN NULL;
END $$;

-- The pool of that name, or the refusal that says which there are.
CREATE OR REPLACE FUNCTION pool_named(p_name text) RETURNS pools LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    this pools;
BEGIN
    SELECT * INTO this FROM pools WHERE name = p_name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no pool %', p_name USING ERRCODE = 'LL005',
            HINT = (SELECT 'Pools: ' || string_agg(name, ', ' ORDER BY name) FROM pools);
    END IF;
    RETURN this;
END $$;

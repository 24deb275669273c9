-- Care: whoever loses a machine keeps the lease. It moves to another one, and its holder is asked for what it lacks.

-- A column with a default comes to no table whose rows are what a function of standard SQL takes, says PostgreSQL 15.20. These come
-- back, with the trigger that calls them, when all functions are applied, which is part of the same transaction.
-- squawk-ignore ban-drop-function
DROP FUNCTION IF EXISTS next_for_lease(leases), odd_in_its_status(leases), odd_as_written(leases), reported_status(leases, text) CASCADE;

-- Moves and terms.
ALTER TABLE pools ADD COLUMN restart_on_move boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN pools.restart_on_move IS 'Whether a job may start again on another machine: the first one may have done part of it.';
ALTER TABLE pools ADD COLUMN keep_seconds integer NOT NULL DEFAULT 300;
COMMENT ON COLUMN pools.keep_seconds IS 'For how long a machine is kept for somebody who is asked for a fresh line.';
ALTER TABLE pools ADD COLUMN extend_seconds integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN pools.extend_seconds IS 'By how much its holder may make a lease longer at a time; 0: not at all.';
ALTER TABLE pools ADD COLUMN longest_seconds integer NOT NULL DEFAULT 86400;
COMMENT ON COLUMN pools.longest_seconds IS 'How long a lease may get so while nobody waits; while somebody does, no longer than lease_seconds.';
ALTER TABLE pools ADD COLUMN warn_seconds integer NOT NULL DEFAULT 900;
COMMENT ON COLUMN pools.warn_seconds IS 'How long before its end the holder of a lease is warned.';
-- There are as many rows as kinds of machines.
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE pools ADD CONSTRAINT pools_terms_are_times CHECK (extend_seconds >= 0 AND longest_seconds > 0 AND warn_seconds >= 0);
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE pools ADD CONSTRAINT pools_keep_seconds_is_a_time CHECK (keep_seconds > 0);

ALTER TABLE leases ADD COLUMN needs_line boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN leases.needs_line IS 'Whether its holder is asked for a fresh line: codes are good once, and for minutes. Until it comes the machine is kept.';
ALTER TABLE leases ADD COLUMN trouble text;
COMMENT ON COLUMN leases.trouble IS 'What went wrong last, while the lease lives on: a word that failure could have, for people to read.';
ALTER TABLE leases ADD COLUMN passed_over boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN leases.passed_over IS 'Whether it keeps its place and nobody serves it: a machine was kept, and its holder did not come. A fresh line ends that.';
ALTER TABLE leases ADD COLUMN left_idle boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN leases.left_idle IS 'Whether it ended because nobody used its machine.';
ALTER TABLE leases ADD COLUMN moves integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN leases.moves IS 'How often it lost its machine, or its job began again there.';
ALTER TABLE leases ADD COLUMN left_seconds integer;
COMMENT ON COLUMN leases.left_seconds IS 'What was left of its time when it lost its machine: so long it has the next one.';

ALTER TABLE leases ADD COLUMN lent_seconds integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN leases.lent_seconds IS 'For how long it had the machines that it lost.';
ALTER TABLE leases ADD COLUMN turn_at timestamptz;
COMMENT ON COLUMN leases.turn_at IS 'When it was given the machine that it has, or had last, or lost that; null: when assigned_at says.';

-- Forecasts. The tables are new: nobody waits for them.
CREATE TABLE forecasts (
    pool    text PRIMARY KEY REFERENCES pools (name) ON DELETE CASCADE ON UPDATE CASCADE,
    at      timestamptz NOT NULL DEFAULT clock(),
    likely  double precision[] NOT NULL,
    sure    double precision[] NOT NULL,
    because text
);
COMMENT ON TABLE forecasts IS 'How many machines of a pool come free within each of forecast_moments(); made anew while somebody waits there.';
COMMENT ON COLUMN forecasts.likely IS 'As many as come free with even odds.';
COMMENT ON COLUMN forecasts.sure IS 'As many as come free in nine of ten cases.';
COMMENT ON COLUMN forecasts.because IS 'What comes, in words.';

CREATE TABLE foretold (
    lease_id uuid PRIMARY KEY REFERENCES leases (id) ON DELETE CASCADE,
    at       timestamptz NOT NULL DEFAULT clock(),
    likely   timestamptz NOT NULL,
    sure     timestamptz NOT NULL
);
COMMENT ON TABLE foretold IS 'What a lease was told first about when it would have a machine: with even odds, and in nine of ten cases.';
-- A forecast looks at the leases of its pool that ended last, a budget at those of this month. Only those that end are written to it.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX leases_that_lasted ON leases (pool, ended_at) WHERE NOT live AND assigned_at IS NOT NULL;

-- Groups: who competes for machines, and what each may have of them.
CREATE TABLE groups (
    name     text PRIMARY KEY,
    max_live integer,
    since    timestamptz NOT NULL DEFAULT clock(),
    CONSTRAINT groups_name_is_one CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    CONSTRAINT groups_max_live_is_a_number CHECK (max_live >= 0)
);
COMMENT ON TABLE groups IS 'People who share machines: a lab, a class. Where groups compete for a pool, each has its turn.';
COMMENT ON COLUMN groups.max_live IS 'How many machines it may have at once, over all pools; null: as many as there are.';
COMMENT ON COLUMN groups.since IS 'Since when max_live is what it is.';

CREATE TABLE members (
    email      varchar(255) PRIMARY KEY,
    group_name text NOT NULL REFERENCES groups (name) ON DELETE CASCADE ON UPDATE CASCADE,
    joined_at  timestamptz NOT NULL DEFAULT clock(),
    join_code  bigint,
    CONSTRAINT members_email_is_one CHECK (email ~ '^[^@[:space:]]+@[^@[:space:]]+[.][^@[:space:].]+$')
);
CREATE UNIQUE INDEX members_one_group_a_person ON members (lower(email));
CREATE INDEX members_of_group ON members (group_name);
COMMENT ON TABLE members IS 'Who is of which group: a person of one at most.';
COMMENT ON COLUMN members.join_code IS 'The id of the code with which they came by themselves, also when it is gone; null: an admin let them in.';

CREATE TABLE shares (
    pool       text NOT NULL REFERENCES pools (name) ON DELETE CASCADE ON UPDATE CASCADE,
    group_name text NOT NULL REFERENCES groups (name) ON DELETE CASCADE ON UPDATE CASCADE,
    max_live   integer,
    since      timestamptz NOT NULL DEFAULT clock(),
    PRIMARY KEY (pool, group_name),
    CONSTRAINT shares_max_live_is_a_number CHECK (max_live >= 0)
);
CREATE INDEX shares_of_group ON shares (group_name);
COMMENT ON TABLE shares IS 'That a group has a share in a pool, which pools for members ask for.';
COMMENT ON COLUMN shares.max_live IS 'How many machines of the pool the group may have at once; null: as many as there are.';
COMMENT ON COLUMN shares.since IS 'Since when max_live is what it is.';

CREATE TABLE join_codes (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    group_name  text NOT NULL REFERENCES groups (name) ON DELETE CASCADE ON UPDATE CASCADE,
    code_sha256 bytea NOT NULL UNIQUE,
    opens_at    timestamptz NOT NULL DEFAULT clock(),
    closes_at   timestamptz NOT NULL,
    max_people  integer,
    CONSTRAINT join_codes_code_is_hashed CHECK (octet_length(code_sha256) = 32),
    CONSTRAINT join_codes_opens_before_it_closes CHECK (opens_at < closes_at),
    CONSTRAINT join_codes_max_people_is_some CHECK (max_people > 0)
);
CREATE INDEX join_codes_of_group ON join_codes (group_name);
COMMENT ON TABLE join_codes IS 'Codes with which people become members of a group by themselves. Only the SHA-256 of each is kept.';
COMMENT ON COLUMN join_codes.max_people IS 'For how many people it is; null: as many as come.';

ALTER TABLE pools ADD COLUMN access text NOT NULL DEFAULT 'open';
COMMENT ON COLUMN pools.access IS 'Who may ask: open, everybody; members, who is of a group that has a share in it.';
ALTER TABLE pools ADD COLUMN per_person integer NOT NULL DEFAULT 1;
COMMENT ON COLUMN pools.per_person IS 'How many live leases a person may have in it. Of all pools where that is 1, a person has one live lease.';
ALTER TABLE pools ADD COLUMN price_per_hour numeric;
COMMENT ON COLUMN pools.price_per_hour IS 'What an hour of one of its machines costs while it is lent.';
ALTER TABLE pools ADD COLUMN budget numeric;
COMMENT ON COLUMN pools.budget IS 'What its leases may cost in a calendar month; null, or without a price: what they like.';
-- There are as many rows as kinds of machines.
-- squawk-ignore adding-field-with-default
ALTER TABLE pools ADD COLUMN is_budgeted boolean NOT NULL GENERATED ALWAYS AS (coalesce(budget IS NOT NULL AND price_per_hour > 0, false)) STORED;
COMMENT ON COLUMN pools.is_budgeted IS 'Whether it has a budget, and a price to use it up.';
ALTER TABLE pools ADD COLUMN currency text NOT NULL DEFAULT 'USD';
COMMENT ON COLUMN pools.currency IS 'What price_per_hour and budget are in.';
ALTER TABLE pools ADD COLUMN time_zone text NOT NULL DEFAULT 'UTC';
COMMENT ON COLUMN pools.time_zone IS 'Where its days and months begin: a name that PostgreSQL knows, Europe/Berlin.';
ALTER TABLE pools ADD COLUMN budget_told text;
COMMENT ON COLUMN pools.budget_told IS 'The month and how many per cent of its budget the last alert.budget was about.';
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE pools ADD CONSTRAINT pools_access_is_one CHECK (access IN ('open', 'members'));
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE pools ADD CONSTRAINT pools_per_person_is_some CHECK (per_person > 0);
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE pools ADD CONSTRAINT pools_money_is_some CHECK (
    price_per_hour BETWEEN 0 AND 1000000000 AND budget BETWEEN 0 AND 1000000000);
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE pools ADD CONSTRAINT pools_currency_is_one CHECK (currency ~ '^[A-Z]{3}$');
-- Whether this is a place whose clocks PostgreSQL knows. (The view of those that it knows takes too long to read.) Shorter names are mostly
-- no places: CET is an hour from UTC in summer too, and UTC+2 is west of it.
CREATE FUNCTION is_time_zone(p_name text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN p_name ~ '^(UTC|Etc/.+|[A-Za-z_]+/[A-Za-z_/-]+)$' AND timezone(p_name, timestamptz 'epoch') IS NOT NULL;
EXCEPTION WHEN invalid_parameter_value THEN
    RETURN false;
END $$;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE pools ADD CONSTRAINT pools_time_zone_is_one CHECK (is_time_zone(time_zone));

ALTER TABLE leases ADD COLUMN group_name text;
COMMENT ON COLUMN leases.group_name IS 'Whose it counts as: the group that its person was of when they asked.';
ALTER TABLE leases ADD COLUMN seat text NOT NULL DEFAULT '';
COMMENT ON COLUMN leases.seat IS 'Empty for the one live lease that a person has in all; in a pool where one may have several, which of those it is.';
-- It is made anew, as fast as the few live leases are read: requests wait so long.
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX leases_one_live_a_person;
-- These take more now than in version 8, in which nothing but request_vms calls them.
-- squawk-ignore ban-drop-function
DROP FUNCTION IF EXISTS answers_to_requests(uuid[], text[], text[], bytea[], bytea[], text[], text[]), request_before(text, bytea, bytea);
-- Version 7 was the last to ask for this one.
-- squawk-ignore ban-drop-function
DROP FUNCTION IF EXISTS lease_view(uuid, bytea);
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX leases_one_live_a_person ON leases (lower(email), seat) WHERE live AND position('@' IN email) > 0;
-- Of leases whose person is of no group nothing is written to these.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX leases_queue_of_groups ON leases (pool, group_name, place) WHERE status = 'queued' AND group_name IS NOT NULL;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX leases_live_of_groups ON leases (group_name, pool) WHERE live AND vm_id IS NOT NULL AND group_name IS NOT NULL;

-- Rosters.
CREATE INDEX members_by_code ON members (join_code);

-- Scaling, schedules and the pause.
ALTER TABLE pools ADD COLUMN paused boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN pools.paused IS 'Nobody is served, and machines neither come nor go: whoever asks waits.';
ALTER TABLE pools ADD COLUMN paused_at timestamptz;
COMMENT ON COLUMN pools.paused_at IS 'Since when; nobody''s time to wait passes meanwhile.';
ALTER TABLE pools ADD COLUMN spare_machines integer NOT NULL DEFAULT 1;
COMMENT ON COLUMN pools.spare_machines IS 'How many machines are kept ready beyond those that are lent or waited for.';
ALTER TABLE pools ADD COLUMN min_machines integer NOT NULL DEFAULT 0;
ALTER TABLE pools ADD COLUMN max_machines integer;
COMMENT ON COLUMN pools.max_machines IS 'The most that there may be; null: machines come and go by hand only.';
ALTER TABLE pools ADD COLUMN boots_at_once integer NOT NULL DEFAULT 10;
COMMENT ON COLUMN pools.boots_at_once IS 'How many machines may boot at a time, and be begun in a minute.';
ALTER TABLE pools ADD COLUMN shrink_after_seconds integer NOT NULL DEFAULT 600;
COMMENT ON COLUMN pools.shrink_after_seconds IS 'For how long there must have been too many before idle ones go.';
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE pools ADD CONSTRAINT pools_size_is_possible CHECK (
    min_machines >= 0 AND spare_machines >= 0 AND max_machines >= min_machines AND boots_at_once > 0 AND shrink_after_seconds >= 0
    AND greatest(min_machines, spare_machines, max_machines, boots_at_once) <= 100000);

CREATE TABLE pool_schedules (
    id          bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    pool        text NOT NULL REFERENCES pools (name) ON DELETE CASCADE ON UPDATE CASCADE,
    name        text NOT NULL,
    days        text[],
    on_date     date,
    starts_at   time NOT NULL,
    ends_at     time NOT NULL,
    time_zone   text NOT NULL,
    machines    integer NOT NULL,
    ends_leases boolean NOT NULL DEFAULT false,
    warned_of   timestamptz NOT NULL DEFAULT clock(),
    UNIQUE (pool, name),
    CONSTRAINT pool_schedules_name_is_one CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    CONSTRAINT pool_schedules_has_days CHECK (
        num_nonnulls(days, on_date) = 1 AND days <@ '{mon,tue,wed,thu,fri,sat,sun}' AND days <> '{}'
        AND on_date BETWEEN '2000-01-01' AND '2999-12-31'),
    CONSTRAINT pool_schedules_time_zone_is_one CHECK (is_time_zone(time_zone)),
    CONSTRAINT pool_schedules_takes_time CHECK (starts_at <> ends_at),
    CONSTRAINT pool_schedules_wants_machines CHECK (machines BETWEEN 0 AND 100000)
);
COMMENT ON TABLE pool_schedules IS 'When a pool has how many machines: on days of the week, or on one date.';
COMMENT ON COLUMN pool_schedules.time_zone IS 'Whose clocks it goes by; left out, those of its pool.';
COMMENT ON COLUMN pool_schedules.ends_at IS 'In time_zone, as starts_at is; when it is earlier than that, on the day after.';
COMMENT ON COLUMN pool_schedules.ends_leases IS 'Whether no lease may last longer than it.';
COMMENT ON COLUMN pool_schedules.warned_of IS 'The last end that was told of; ends before it are nobody''s.';

CREATE TABLE pool_scaling (
    pool          text PRIMARY KEY REFERENCES pools (name) ON DELETE CASCADE ON UPDATE CASCADE,
    coming        text[] NOT NULL DEFAULT '{}',
    failed_boots  integer NOT NULL DEFAULT 0,
    surplus_since timestamptz,
    most_wanted   integer,
    booked_until  timestamptz,
    leaving       text[] NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE pool_scaling IS 'What is remembered of a pool from one look at its size to the next.';
COMMENT ON COLUMN pool_scaling.coming IS 'The machines that were booting.';
COMMENT ON COLUMN pool_scaling.failed_boots IS 'How many did not come since one last did; 0 lets growth go on that was stopped.';
COMMENT ON COLUMN pool_scaling.most_wanted IS 'The most that was wanted since there are too many.';
COMMENT ON COLUMN pool_scaling.booked_until IS 'Each boot that is begun books its part of a minute.';
COMMENT ON COLUMN pool_scaling.leaving IS 'The machines that were taken out of allocation to be let go.';

CREATE TYPE pool_size AS (lent integer, waiting integer, ready integer, coming text[], there integer);
COMMENT ON TYPE pool_size IS 'The machines of a pool: lent, ready or about to be, on their way by name, and all that there are; and how many wait for one.';

ALTER TABLE operations ADD COLUMN pool text;
COMMENT ON COLUMN operations.pool IS 'Whose machines it makes or takes away; null: those of no pool alone.';

-- Machines that fail by the dozen.
ALTER TABLE pools ADD COLUMN rests_until timestamptz;
COMMENT ON COLUMN pools.rests_until IS 'Until when nobody who waits is given a machine, because so many failed; for ten minutes after, a few are at a time.';

-- Idle: a machine that nobody uses goes to whoever is next, and its holder is warned before.
ALTER TABLE vm_heartbeats ADD COLUMN used_at timestamptz;
COMMENT ON COLUMN vm_heartbeats.used_at IS 'When the machine was last used by whoever has it, as its client says; null: it cannot say.';
ALTER TABLE pools ADD COLUMN idle_seconds integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN pools.idle_seconds IS 'How long a machine may be left unused before its lease ends; 0: as long as the lease lasts.';
ALTER TABLE pools ADD COLUMN idle_warn_seconds integer NOT NULL DEFAULT 600;
COMMENT ON COLUMN pools.idle_warn_seconds IS 'How long before that its holder is warned.';
-- There are as many rows as kinds of machines.
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE pools ADD CONSTRAINT pools_idle_seconds_is_a_time CHECK (
    idle_seconds >= 0 AND idle_warn_seconds > 0 AND (idle_seconds = 0 OR idle_seconds > idle_warn_seconds));
ALTER TABLE leases ADD COLUMN here_at timestamptz;
COMMENT ON COLUMN leases.here_at IS 'When its holder last said that they are still there.';
ALTER TABLE leases ADD COLUMN idle_until timestamptz;
COMMENT ON COLUMN leases.idle_until IS 'When it ends unless somebody uses its machine before; null: nobody was warned of that.';
-- Only leases whose holders are warned are written to it.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX leases_left_idle ON leases (idle_until) WHERE status = 'active' AND idle_until IS NOT NULL;
-- What a claim writes: each index costs every claim, so there is none that another one does as well.
-- events_of_hostname finds what happened to a machine.
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX events_of_vm;
-- These are made anew of the leases that are live, or have a key; requests wait for one look at all leases.
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX leases_live, leases_expiries;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX leases_live ON leases (pool, expires_at) WHERE live;
-- squawk-ignore ban-drop-constraint
ALTER TABLE leases DROP CONSTRAINT leases_idempotency_sha256_key;
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX leases_idempotency ON leases (idempotency_sha256) WHERE idempotency_sha256 IS NOT NULL;
-- Its successor takes the arguments of this one as well: clients of version 8 find that.
-- squawk-ignore ban-drop-function
DROP FUNCTION IF EXISTS client_api.hello(bigint, uuid);

-- Compiled: its statements take longer to compile than to run, a forecast thirty times. New sessions have it. Where the database is
-- somebody else's it stays as it is.
DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I SET jit = off', current_database());
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'Let its owner have the database compile no statements: ALTER DATABASE % SET jit = off', current_database();
END $$;

-- The tables of the main job: a person's lease meets a machine.
-- Rules that tie facts of one row together are CHECKs here; rules between rows and over time are in functions/.

-- All time in LabLink is this function's; a rehearsal replaces it in its own scratch database.
CREATE FUNCTION clock() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE
RETURN now();

CREATE TABLE pools (
    name            text PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    accepts_desktop boolean NOT NULL DEFAULT true,
    programs        text[] NOT NULL DEFAULT '{}',
    lease_seconds   integer NOT NULL DEFAULT 28800 CHECK (lease_seconds > 0),
    claim_seconds   integer NOT NULL DEFAULT 60 CHECK (claim_seconds > 0),
    command_seconds integer NOT NULL DEFAULT 90 CHECK (command_seconds > 0),
    queue_seconds   integer NOT NULL DEFAULT 86400 CHECK (queue_seconds > 0)
);
COMMENT ON TABLE pools IS 'One kind of machine: which commands it accepts and how long each step of a lease may take.';
INSERT INTO pools (name) VALUES ('default');

CREATE TABLE vm_transitions (
    from_status text,
    to_status   text,
    epoch_rule  text NOT NULL CHECK (epoch_rule IN ('+', '=')),
    PRIMARY KEY (from_status, to_status)
);
COMMENT ON TABLE vm_transitions IS 'The changes of vms.status that there are; + means the epoch rises with the change.';
INSERT INTO vm_transitions (from_status, to_status, epoch_rule) VALUES
    ('booting',   'available', '='),
    ('booting',   'cleaning',  '='),
    ('available', 'in-use',    '+'),
    ('available', 'cleaning',  '+'),
    ('in-use',    'cleaning',  '+'),
    ('cleaning',  'available', '='),
    ('failed',    'cleaning',  '='),
    ('booting',   'failed',    '+'),
    ('available', 'failed',    '+'),
    ('in-use',    'failed',    '+'),
    ('cleaning',  'failed',    '+'),
    ('booting',   'retired',   '+'),
    ('available', 'retired',   '+'),
    ('in-use',    'retired',   '+'),
    ('cleaning',  'retired',   '+'),
    ('failed',    'retired',   '+'),
    ('retired',   'booting',   '+');

CREATE TABLE lease_transitions (
    from_status text,
    to_status   text,
    PRIMARY KEY (from_status, to_status)
);
COMMENT ON TABLE lease_transitions IS 'The changes of leases.status that there are; what is in no first column is terminal.';
INSERT INTO lease_transitions (from_status, to_status) VALUES
    ('queued',   'assigned'),
    ('queued',   'failed'),
    ('queued',   'cancelled'),
    ('assigned', 'claimed'),
    ('assigned', 'failed'),
    ('assigned', 'cancelled'),
    ('claimed',  'active'),
    ('claimed',  'failed'),
    ('claimed',  'cancelled'),
    ('active',   'ended'),
    ('active',   'failed');

CREATE TABLE vms (
    id            serial PRIMARY KEY,
    hostname      varchar(255) NOT NULL UNIQUE,
    email         varchar(255),
    status        varchar(50) NOT NULL DEFAULT 'booting',
    crd_command   text,
    created_at    timestamptz NOT NULL DEFAULT clock(),
    updated_at    timestamptz NOT NULL DEFAULT clock(),
    pool          text NOT NULL DEFAULT 'default' REFERENCES pools (name),
    epoch         bigint NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    cleaned_epoch bigint NOT NULL DEFAULT 0 CHECK (cleaned_epoch <= epoch),
    lease_id      uuid UNIQUE,
    reason        text,
    role          name UNIQUE,
    CONSTRAINT vms_hostname_is_a_name CHECK (hostname ~ '^[A-Za-z0-9._-]{1,255}$'),
    CONSTRAINT vms_status_is_known
        CHECK (status IN ('booting', 'available', 'in-use', 'cleaning', 'failed', 'retired')),
    CONSTRAINT vms_available_is_clean CHECK (status <> 'available' OR cleaned_epoch = epoch),
    CONSTRAINT vms_in_use_has_a_lease CHECK ((status = 'in-use') = (lease_id IS NOT NULL)),
    CONSTRAINT vms_only_in_use_has_a_person CHECK (status = 'in-use' OR (email IS NULL AND crd_command IS NULL)),
    CONSTRAINT vms_failed_has_a_reason CHECK ((status = 'failed') = (reason IS NOT NULL))
);
CREATE INDEX vms_free ON vms (pool, updated_at, id) WHERE status = 'available';
COMMENT ON TABLE vms IS 'One machine. epoch fences its client: it rises whenever the machine changes hands or is cut off.';
COMMENT ON COLUMN vms.crd_command IS 'The command with its code and PIN blotted out; the secrets live in lease_secrets.';
COMMENT ON COLUMN vms.cleaned_epoch IS 'The epoch at which the machine last confirmed its wipe.';
COMMENT ON COLUMN vms.reason IS 'Why the machine failed: lost, unhealthy: …, or held by NAME with what they wrote.';

CREATE TABLE vm_heartbeats (
    vm_id   integer PRIMARY KEY,
    seen_at timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE vm_heartbeats IS 'When each machine last said hello; its own small table, so that a heartbeat wakes nobody.';

CREATE TABLE vm_roles (
    role       name PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT clock()
);
COMMENT ON TABLE vm_roles IS 'Database roles made for machines of this database; a role that no vms row names is dropped.';

CREATE TABLE join_tokens (
    token_sha256    bytea PRIMARY KEY CHECK (octet_length(token_sha256) = 32),
    hostname        varchar(255) NOT NULL,
    pool            text NOT NULL REFERENCES pools (name),
    created_at      timestamptz NOT NULL DEFAULT clock(),
    expires_at      timestamptz NOT NULL,
    verifier_sha256 bytea,
    role            name,
    CONSTRAINT join_tokens_hostname_is_a_name CHECK (hostname ~ '^[A-Za-z0-9._-]{1,255}$')
);
COMMENT ON TABLE join_tokens IS 'Invitations: each lets one machine enrol once. A repeat with the same verifier is answered the same.';

CREATE TABLE leases (
    id                 uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    place              bigint GENERATED ALWAYS AS IDENTITY,
    email              varchar(255) NOT NULL,
    status             text NOT NULL DEFAULT 'queued',
    live               boolean NOT NULL
                       GENERATED ALWAYS AS (status IN ('queued', 'assigned', 'claimed', 'active')) STORED,
    pool               text NOT NULL DEFAULT 'default' REFERENCES pools (name),
    kind               text NOT NULL CHECK (kind IN ('desktop', 'job', 'hold', 'typed')),
    command            jsonb,
    crd_command        text,
    vm_id              integer,
    hostname           varchar(255),
    epoch              bigint,
    token_sha256       bytea,
    token_salt         bytea,
    idempotency_sha256 bytea UNIQUE,
    request_sha256     bytea,
    created_at         timestamptz NOT NULL DEFAULT clock(),
    assigned_at        timestamptz,
    claimed_at         timestamptz,
    started_at         timestamptz,
    active_at          timestamptz,
    ended_at           timestamptz,
    deadline           timestamptz,
    expires_at         timestamptz,
    exit_code          integer,
    output             text CHECK (length(output) <= 65536),
    failure            text CHECK (failure ~ '^[a-z][a-z-]{0,39}$'),
    version            bigint NOT NULL DEFAULT 0,
    CONSTRAINT leases_status_is_known
        CHECK (status IN ('queued', 'assigned', 'claimed', 'active', 'ended', 'failed', 'cancelled')),
    CONSTRAINT leases_queued_has_no_vm CHECK (status <> 'queued' OR vm_id IS NULL),
    CONSTRAINT leases_served_has_a_vm
        CHECK (status NOT IN ('assigned', 'claimed', 'active', 'ended')
               OR num_nulls(vm_id, hostname, epoch, assigned_at) = 0),
    CONSTRAINT leases_active_was_started
        CHECK (status <> 'active' OR kind = 'hold' OR started_at IS NOT NULL),
    CONSTRAINT leases_active_desktop_exited_0
        CHECK (status <> 'active' OR kind <> 'desktop' OR exit_code IS NOT DISTINCT FROM 0),
    CONSTRAINT leases_active_has_a_known_kind CHECK (status <> 'active' OR kind <> 'typed'),
    CONSTRAINT leases_failed_has_a_failure CHECK ((status = 'failed') = (failure IS NOT NULL)),
    CONSTRAINT leases_terminal_has_an_end CHECK ((status IN ('ended', 'failed', 'cancelled')) = (ended_at IS NOT NULL)),
    CONSTRAINT leases_waiting_has_a_deadline
        CHECK (status NOT IN ('queued', 'assigned', 'claimed') OR deadline IS NOT NULL)
);
CREATE UNIQUE INDEX leases_one_live_a_person ON leases (lower(email)) WHERE live AND position('@' IN email) > 0;
CREATE UNIQUE INDEX leases_one_live_a_vm ON leases (vm_id) WHERE live AND vm_id IS NOT NULL;
CREATE INDEX leases_queue ON leases (pool, place) WHERE status = 'queued';
CREATE INDEX leases_live ON leases (status) WHERE live;
CREATE INDEX leases_deadlines ON leases (deadline) WHERE live AND deadline IS NOT NULL;
CREATE INDEX leases_expiries ON leases (pool, expires_at) WHERE live AND expires_at IS NOT NULL;
COMMENT ON TABLE leases IS 'One request of one person, from asking to the end. A terminal lease never changes.';
COMMENT ON COLUMN leases.email IS 'Who holds it: an e-mail address, or the database user who took a machine by hand.';
COMMENT ON COLUMN leases.kind IS 'typed: a line that an admin typed; the machine, which parses it, reports whether it is a desktop or a job.';
COMMENT ON COLUMN leases.command IS 'The parsed command without its secrets; null when an admin typed the line in psql.';
COMMENT ON COLUMN leases.deadline IS 'When the present step must be over; null once active.';

CREATE TABLE lease_secrets (
    lease_id   uuid PRIMARY KEY REFERENCES leases (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    secrets    jsonb,
    line       text,
    created_at timestamptz NOT NULL DEFAULT clock(),
    CHECK (num_nonnulls(secrets, line) = 1)
);
CREATE INDEX lease_secrets_age ON lease_secrets (created_at);
COMMENT ON TABLE lease_secrets IS 'Code and PIN (or the line an admin typed), from accept to delivery, ten minutes at most. Never dumped.';

CREATE TABLE events (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT clock(),
    actor       text NOT NULL,
    db_role     name NOT NULL DEFAULT session_user,
    client_addr inet DEFAULT inet_client_addr(),
    kind        text NOT NULL,
    vm_id       integer,
    hostname    varchar(255),
    lease_id    uuid,
    detail      jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX events_of_lease ON events (lease_id, id) WHERE lease_id IS NOT NULL;
CREATE INDEX events_of_vm ON events (vm_id, id) WHERE vm_id IS NOT NULL;
COMMENT ON TABLE events IS 'What happened, who did it and why; written by triggers in the transaction of the change, never changed.';

CREATE TABLE sweeps (
    name text PRIMARY KEY
);
COMMENT ON TABLE sweeps IS 'The periodic duties; whoever runs one holds its row''s lock.';
INSERT INTO sweeps (name) VALUES ('lost'), ('deadlines'), ('queue'), ('secrets'), ('roles');

CREATE TABLE operations (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text NOT NULL,
    status      text NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'done', 'failed')),
    started_by  text NOT NULL DEFAULT session_user,
    started_at  timestamptz NOT NULL DEFAULT clock(),
    finished_at timestamptz,
    done        integer NOT NULL DEFAULT 0,
    total       integer,
    result      jsonb,
    error       text,
    CHECK ((status = 'running') = (finished_at IS NULL)),
    CHECK ((status = 'failed') = (error IS NOT NULL))
);
COMMENT ON TABLE operations IS 'One run of something long (a migration, a backup, terraform): progress and result.';

"""Statements as an admin might type them, sensible or not: any column, any status, any epoch, one row or all."""

from hypothesis import strategies as st

from tests.sql.steps import ADA, BOB, LINE

QUOTED_LINE = "'" + LINE + "'"
HOSTNAMES = ["vm-1", "vm-2", "vm-3"]
VM_STATUSES = ["booting", "available", "in-use", "cleaning", "failed", "retired"]
LEASE_STATUSES = ["queued", "assigned", "claimed", "active", "ended", "failed", "cancelled"]
NUMBERS = ["0", "1", "7", "-1", "9223372036854775807", "NULL"]
TIMES = ["NOW()", "NOW() + interval '1 hour'", "NULL"]
PEOPLE = [f"'{ADA}'", f"'{ADA.upper()}'", f"'{BOB}'", "'lablink'", "NULL"]
SOME_LEASE = [f"(SELECT id FROM leases ORDER BY place DESC OFFSET {n} LIMIT 1)" for n in range(3)]
SOME_VM = [f"(SELECT id FROM vms ORDER BY id OFFSET {n} LIMIT 1)" for n in range(3)]


def quoted(words: list[str]) -> list[str]:
    return [f"'{word}'" for word in words]


VM_COLUMNS = {
    "status": [*quoted(VM_STATUSES) * 2, "'on-fire'", "NULL"],
    "email": PEOPLE,
    "crd_command": [QUOTED_LINE, "'python train.py'", "NULL"],
    "epoch": ["epoch + 1", "epoch + 1", "epoch + 100", "epoch - 1", "epoch", *NUMBERS],
    "cleaned_epoch": ["epoch", "cleaned_epoch + 1", *NUMBERS],
    "lease_id": [*SOME_LEASE, *SOME_LEASE, "lease_id", "gen_random_uuid()", "NULL"],
    "reason": ["'lost'", "'held for repair'", "NULL"],
    "pool": ["'default'", "'gpu'", "'nowhere'", "NULL"],
    "hostname": [*quoted(HOSTNAMES), "'vm-9'", "''", "NULL"],
    "id": ["id", "id + 1", "99"],
    "updated_at": TIMES,
    "created_at": TIMES,
}
LEASE_COLUMNS = {
    "status": [*quoted(LEASE_STATUSES) * 2, "'lent'", "NULL"],
    "email": PEOPLE,
    "vm_id": ["vm_id", *SOME_VM, "NULL"],
    "epoch": ["epoch", "epoch + 1", *NUMBERS],
    "hostname": [*quoted(HOSTNAMES), "NULL"],
    "kind": ["'desktop'", "'job'", "'hold'", "'typed'", "'lent'"],
    "pool": ["'default'", "'gpu'"],
    "command": ["'{}'", "NULL"],
    "crd_command": [QUOTED_LINE, "NULL"],
    "started_at": TIMES,
    "assigned_at": TIMES,
    "active_at": TIMES,
    "ended_at": TIMES,
    "deadline": TIMES[1:],
    "expires_at": TIMES[1:],
    "exit_code": ["0", "1", "NULL"],
    "output": ["'x'", "repeat('x', 100000)", "NULL"],
    "failure": ["'lost'", "'Not A Slug'", "NULL"],
    "version": ["7"],
    "id": ["id", "gen_random_uuid()"],
    "place": ["1", "DEFAULT"],
    "live": ["true", "DEFAULT"],
    "idempotency_sha256": ["'x'", "NULL"],
}
VM_FILTERS = [
    *(f"hostname = '{name}'" for name in HOSTNAMES),
    "true",
    *(f"status = '{status}'" for status in VM_STATUSES),
]
LEASE_FILTERS = [
    *(f"id = {lease}" for lease in SOME_LEASE),
    "true",
    *(f"status = '{status}'" for status in LEASE_STATUSES),
]


def assignments(columns: dict[str, list[str]]) -> st.SearchStrategy[dict[str, str]]:
    """One to four columns with a value each."""
    pair = st.sampled_from(sorted(columns)).flatmap(
        lambda name: st.tuples(st.just(name), st.sampled_from(columns[name]))
    )
    return st.one_of(pair.map(lambda one: dict([one])), st.lists(pair, min_size=1, max_size=4).map(dict))


def update(table: str, columns: dict[str, list[str]], filters: list[str]) -> st.SearchStrategy[str]:
    return st.builds(
        lambda values, where: f"UPDATE {table} SET {', '.join(f'{k} = {v}' for k, v in values.items())} WHERE {where}",
        assignments(columns),
        st.sampled_from(filters),
    )


def insert(table: str, columns: dict[str, list[str]], always: dict[str, str]) -> st.SearchStrategy[str]:
    """An INSERT with any columns (an UPDATE's `epoch + 1` has no meaning there, so such values are left out)."""
    meaningful = {name: [v for v in values if not v.startswith(name)] for name, values in columns.items()}
    meaningful["cleaned_epoch"] = ["0", "1", "7"]
    usable = {name: values for name, values in meaningful.items() if name in columns}
    return st.builds(
        lambda values: f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(values.values())})",
        assignments(usable).map(lambda chosen: {**always, **chosen}),
    )


CHANGE_VM = update("vms", VM_COLUMNS, VM_FILTERS)
CHANGE_LEASE = update("leases", LEASE_COLUMNS, LEASE_FILTERS)
CHANGE_LEASE_STATUS = st.builds(
    "UPDATE leases SET status = '{}' WHERE {}".format, st.sampled_from(LEASE_STATUSES), st.sampled_from(LEASE_FILTERS)
)
CHANGE_VM_STATUS = st.one_of(
    st.builds(
        "UPDATE vms SET status = '{}' WHERE {}".format, st.sampled_from(VM_STATUSES), st.sampled_from(VM_FILTERS)
    ),
    st.builds(
        "UPDATE vms SET status = 'in-use', email = {}, crd_command = {}, lease_id = {} WHERE hostname = '{}'".format,
        st.sampled_from(PEOPLE),
        st.sampled_from(VM_COLUMNS["crd_command"]),
        st.sampled_from(VM_COLUMNS["lease_id"]),
        st.sampled_from(HOSTNAMES),
    ),
    st.builds(
        "UPDATE vms SET status = 'available', cleaned_epoch = epoch WHERE status = 'cleaning' AND {}".format,
        st.sampled_from(VM_FILTERS),
    ),
)
ADD = st.one_of(
    insert("vms", VM_COLUMNS, {"hostname": "'vm-' || (random() * 1000)::int"}),
    insert("leases", LEASE_COLUMNS, {"email": f"'{BOB}'", "kind": "'job'"}),
    st.sampled_from(
        [
            "INSERT INTO vms (hostname, status) SELECT 'h' || g, 'in-use' FROM generate_series(1, 3) g",
            "INSERT INTO vms (hostname) VALUES ('vm-1') ON CONFLICT (hostname) DO UPDATE SET status = 'failed'",
        ]
    ),
)
TAKE_AWAY = st.sampled_from(
    [
        "DELETE FROM vms WHERE hostname = 'vm-1'",
        "DELETE FROM vms WHERE status = 'in-use'",
        "TRUNCATE TABLE vms",
        "TRUNCATE TABLE vms RESTART IDENTITY",
        "DELETE FROM leases",
        "DELETE FROM leases WHERE status IN ('ended', 'failed', 'cancelled')",
        "TRUNCATE leases",
        "TRUNCATE leases CASCADE",
        "DELETE FROM lease_secrets",
        "TRUNCATE lease_secrets",
        "DELETE FROM vm_roles",
        "UPDATE vms SET role = NULL",
        "UPDATE join_tokens SET role = NULL, verifier_sha256 = NULL",
        "DELETE FROM join_tokens",
        "DELETE FROM vm_transitions",
        "TRUNCATE lease_transitions",
        "DELETE FROM sweeps",
        "TRUNCATE pools CASCADE",
        "TRUNCATE vm_heartbeats",
        "UPDATE lease_secrets SET secrets = '{}', line = NULL",
        "DELETE FROM vm_heartbeats",
        "UPDATE pools SET lease_seconds = 1, claim_seconds = 3600, queue_seconds = 3600",
        "UPDATE pools SET accepts_desktop = NOT accepts_desktop",
        "DELETE FROM pools WHERE name = 'gpu'",
        "UPDATE events SET kind = 'x'",
        "DELETE FROM events",
    ]
)
STATEMENTS = st.one_of(CHANGE_VM, CHANGE_VM_STATUS, CHANGE_LEASE, CHANGE_LEASE_STATUS, ADD, TAKE_AWAY)

"""What broken_invariants() says of rows that no trigger guarded."""

import asyncpg
import pytest

from tests.sql.steps import lent, machine
from tests.support.database import Database


@pytest.mark.parametrize(
    ("rule", "damage"),
    [
        ("I6", "UPDATE leases SET epoch = 7"),
        ("I6", "UPDATE vms SET lease_id = gen_random_uuid()"),
        ("I7", "UPDATE vms SET epoch = 0; UPDATE leases SET epoch = 0"),
        ("I8", "DELETE FROM events WHERE kind = 'lease.active'"),
        ("I10", "INSERT INTO lease_secrets SELECT id, '{}' FROM leases"),
        ("L1", "UPDATE leases SET deadline = clock() - interval '1 minute'"),
        ("L1", "UPDATE leases SET expires_at = clock() - interval '1 minute'"),
    ],
)
async def test_a_rule_that_is_broken_behind_the_triggers_is_named(
    database: Database, service: asyncpg.Connection, rule: str, damage: str
) -> None:
    await lent(database, service)
    superuser = await database.connect("postgres")

    await superuser.execute(f"SET session_replication_role = replica; {damage}")

    assert {row["rule"] for row in await superuser.fetch("SELECT * FROM broken_invariants()")} == {rule}


async def test_an_id_that_a_deleted_machine_had_begins_a_new_history(
    database: Database, owner: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await vm.hello(7, None)
    await owner.execute("DELETE FROM vms")

    await owner.execute("INSERT INTO vms (id, hostname) VALUES ($1, 'vm-2')", vm.vm.id)
    await owner.execute(
        "INSERT INTO events (actor, kind, vm_id, detail) VALUES ('x', 'vm.note', $1, '{\"epoch\": \"?\"}')", vm.vm.id
    )

    assert await owner.fetch("SELECT * FROM broken_invariants()") == []

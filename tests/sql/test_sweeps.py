"""The other periodic duties: whose time is up, who is next, what is forgotten; and that two keep apart."""

from uuid import UUID

import asyncpg
import pytest

from tests.sql.steps import ADA, BOB, ask, lease_of, machine, machines, row_of
from tests.support.database import Database


@pytest.mark.parametrize(
    ("reached", "aged", "status", "failure"),
    [
        ("queued", 86_401, "failed", "queue-timeout"),
        ("assigned", 61, "queued", None),
        ("claimed", 121, "queued", None),
        ("active", 28_801, "ended", None),
    ],
)
async def test_each_step_of_a_lease_has_its_deadline(
    database: Database,
    owner: asyncpg.Connection,
    service: asyncpg.Connection,
    reached: str,
    aged: float,
    status: str,
    failure: str | None,
) -> None:
    lease = await lease_that_is(reached, database, service)
    early = await service.fetchval("SELECT sweep_deadlines()")
    await database.age(lease, aged)

    late = await service.fetchval("SELECT sweep_deadlines()")

    row = await lease_of(owner, lease)
    assert (early, late, row["status"], row["failure"]) == (0, 1, status, failure)
    assert await owner.fetchval("SELECT count(*) FROM vms WHERE status <> 'cleaning'") == 0


async def lease_that_is(status: str, database: Database, service: asyncpg.Connection) -> UUID:
    if status == "queued":
        answer = await ask(service)
    else:
        vm = await machine(database)
        answer = await ask(service)
        if status == "claimed":
            await vm.claim(1)
        elif status == "active":
            await vm.run()
    lease = answer["lease_id"]
    assert isinstance(lease, UUID)
    return lease


async def test_a_machine_held_by_hand_has_no_deadline(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await database.vm("vm-1")
    await owner.execute("UPDATE vms SET status = 'in-use'")
    await database.age((await row_of(owner))["lease_id"], 10_000_000)

    assert await service.fetchval("SELECT sweep_deadlines()") == 0


@pytest.mark.parametrize("held", ["vms", "leases"])
async def test_a_lease_that_somebody_works_on_is_left_for_the_next_sweep(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, held: str
) -> None:
    lease = await lease_that_is("assigned", database, service)
    await database.age(lease, 100)
    await service.execute("SET lock_timeout = '2s'")
    async with owner.transaction():
        await owner.execute(f"SELECT FROM {held} FOR UPDATE")
        first = await service.fetchval("SELECT sweep_deadlines()")

    assert (first, await service.fetchval("SELECT sweep_deadlines()")) == (0, 1)


async def test_whoever_waits_gets_a_machine_that_nobody_gave_them(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    for vm in await machines(database, 2):
        await database.age(vm.vm, 60)
    leases = [(await ask(service, email))["lease_id"] for email in (ADA, BOB)]
    await owner.execute("UPDATE vm_heartbeats SET seen_at = clock()")

    assert await service.fetchval("SELECT sweep_queue()") == 2

    assert [(await lease_of(owner, lease))["status"] for lease in leases] == ["assigned", "assigned"]


async def test_every_pool_has_a_queue_of_its_own(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await service.execute("SELECT ensure_pool('gpu', true, '{}', 60, 60, 60)")
    vms = [await database.vm("vm-1"), await database.vm("vm-2", pool="gpu")]
    for vm in vms:
        await database.age(vm, 60)
    await ask(service, ADA, pool="gpu")
    await ask(service, BOB)
    await owner.execute("UPDATE vm_heartbeats SET seen_at = clock()")

    assert await service.fetchval("SELECT sweep_queue()") == 2

    assert [(await row_of(owner, name))["email"] for name in ("vm-1", "vm-2")] == [BOB, ADA]


async def test_a_code_that_waits_for_ten_minutes_is_forgotten_and_another_is_asked_for(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    lease = (await ask(service))["lease_id"]
    await database.age(lease, 540)
    early = await service.fetchval("SELECT sweep_secrets()")
    await database.age(lease, 61)

    late = await service.fetchval("SELECT sweep_secrets()")

    assert (early, late) == (0, 1)
    row = await lease_of(owner, lease)
    assert (row["status"], row["needs_line"], row["trouble"]) == ("queued", True, "code-expired")
    assert await owner.fetchval("SELECT count(*) FROM lease_secrets") == 0


async def test_a_code_that_was_claimed_is_forgotten_after_ten_minutes_and_its_command_goes_on(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await service.execute("SELECT ensure_pool('default', true, '{}', 6000, 6000, 6000)")
    lease = await lease_that_is("claimed", database, service)
    await database.age(lease, 601)

    await service.execute("SELECT sweep_secrets()")

    assert (await lease_of(owner, lease))["status"] == "claimed"
    assert await owner.fetchval("SELECT count(*) FROM lease_secrets") == 0


async def test_an_old_code_of_a_lease_that_is_over_is_forgotten_and_counted(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    lease = (await ask(service))["lease_id"]
    await service.execute("SELECT end_lease($1)", lease)
    await owner.execute(
        "INSERT INTO lease_secrets (lease_id, line, created_at) VALUES ($1, 'x', clock() - interval '601 s')", lease
    )

    assert await service.fetchval("SELECT sweep_secrets()") == 1
    assert await owner.fetchval("SELECT count(*) FROM lease_secrets") == 0


async def test_a_job_has_no_code_to_grow_old(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await service.execute("SELECT ensure_pool('default', true, ARRAY['echo'], 60, 60, 6000)")
    lease = (await ask(service, argv=["echo", "hi"]))["lease_id"]
    await database.age(lease, 601)

    assert await service.fetchval("SELECT sweep_secrets()") == 0
    assert (await lease_of(owner, lease))["status"] == "queued"


SWEEPS = ["sweep_lost(1e6)", "sweep_deadlines()", "sweep_queue()", "sweep_secrets()", "sweep_roles()"]


@pytest.mark.parametrize("sweep", SWEEPS)
async def test_a_sweep_with_nothing_to_do_does_nothing(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, sweep: str
) -> None:
    await database.vm("vm-1")
    before = await owner.fetchval("SELECT max(id) FROM events")

    assert await service.fetchval(f"SELECT {sweep}") == 0

    assert await owner.fetchval("SELECT max(id) FROM events") == before


@pytest.mark.usefixtures("server_since_long")
@pytest.mark.parametrize("sweep", SWEEPS)
async def test_a_sweep_leaves_when_another_allocator_is_at_it(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, sweep: str
) -> None:
    await service.execute("SELECT ensure_pool('default', true, '{}', 60, 60, 600)")
    silent, _ = await machine(database, "vm-1"), await machine(database, "vm-2")
    await owner.execute("DELETE FROM vms WHERE hostname = 'vm-2'")
    await database.age(silent.vm, 100)
    await database.age((await ask(service, ADA))["lease_id"], 601)
    await owner.execute("INSERT INTO vms (hostname, status) VALUES ('vm-3', 'available')")
    await owner.execute("INSERT INTO vm_heartbeats SELECT id, clock() FROM vms WHERE hostname = 'vm-3'")
    other = await database.connect("lablink_app")
    await service.execute("SET lock_timeout = '2s'")
    async with other.transaction():
        mine = await other.fetchval(f"SELECT {sweep}")
        theirs = await service.fetchval(f"SELECT {sweep}")

    assert mine > 0
    assert theirs == 0

"""Who serves a queue keeps locked what they give away and no more, and nobody waits in a circle."""

import asyncio

import asyncpg
import pytest

from tests.sql.steps import ADA, BOB, CYD, ask, connections, lease_of, lent, machine, machines, row_of, waits_for_a_lock
from tests.sql.test_passed_over import with_nobody_there
from tests.support.database import Database


async def test_who_is_passed_over_keeps_no_machine_from_those_who_ask(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await with_nobody_there(database, owner, service)
    await owner.execute("UPDATE leases SET status = 'cancelled' WHERE email = $1", BOB)
    await machine(database, "vm-2")
    await machine(database, "vm-3")
    (first,) = await connections(database, 1)

    async with first.transaction():
        for person, email in ((first, BOB), (service, CYD)):
            lease = (await ask(person, email))["lease_id"]
            assert await person.fetchval("SELECT status FROM lease_views WHERE id = $1", lease) == "assigned"


async def test_a_group_that_has_all_it_may_have_keeps_no_machine_from_those_who_ask(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("INSERT INTO groups VALUES ('biology', 0)")
    await owner.execute("INSERT INTO members VALUES ($1, 'biology')", ADA)
    waits = (await ask(service, ADA))["lease_id"]
    await machines(database, 2)
    (first,) = await connections(database, 1)

    async with first.transaction():
        for person, email in ((first, BOB), (service, CYD)):
            lease = (await ask(person, email))["lease_id"]
            assert await person.fetchval("SELECT status FROM lease_views WHERE id = $1", lease) == "assigned"
    assert (await lease_of(owner, waits))["status"] == "queued"


@pytest.mark.parametrize("limits", ["UPDATE pools SET price_per_hour = 1, budget = 1000", "SELECT"])
async def test_who_serves_several_pools_locks_all_of_them_and_then_all_groups(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, limits: str
) -> None:
    """`early` waits in pool b and `late` in both: whoever had `late` for the first could not wait for what is of b."""
    await owner.execute("INSERT INTO pools (name) VALUES ('a'), ('b')")
    await owner.execute("INSERT INTO groups VALUES ('early', 10), ('late', 10)")
    await owner.execute("INSERT INTO members VALUES ($1, 'late'), ($2, 'late'), ($3, 'early')", ADA, BOB, CYD)
    for pool in "ab":
        await database.vm(f"{pool}-1", pool=pool)
    await owner.execute("UPDATE vms SET draining = true")
    for email, pool in ((ADA, "a"), (BOB, "b"), (CYD, "b")):
        await ask(service, email, pool=pool)
    await owner.execute(limits)
    await owner.execute("UPDATE vms SET draining = false")
    one, other, third = await connections(database, 3, "lablink")

    async with third.transaction():
        await third.execute("SELECT FROM groups WHERE name = 'late' FOR NO KEY UPDATE")
        sweep = asyncio.create_task(one.execute("SELECT sweep_queue()"))
        await waits_for_a_lock(owner, one)
        serve = asyncio.create_task(other.execute("SELECT serve_queue('b')"))
        await waits_for_a_lock(owner, other)
    await asyncio.gather(sweep, serve)

    assert {(await row_of(owner, name))["status"] for name in ("a-1", "b-1")} == {"in-use"}


async def test_whoever_asks_waits_for_nobody_while_they_have_the_budget(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    """Ada got a lease while her request waited for the budget; it is moving, and who moves it waits for the budget."""
    await owner.execute("UPDATE pools SET price_per_hour = 1, budget = 1000")
    budget, moves = await connections(database, 2, "lablink")
    async with budget.transaction():
        await budget.execute("SELECT FROM pools FOR NO KEY UPDATE")
        asks = asyncio.create_task(ask(service, ADA))
        await waits_for_a_lock(owner, service)
        await owner.execute(
            "INSERT INTO leases (email, status, pool, kind) VALUES ($1, 'queued', 'default', 'desktop')", ADA
        )
        move = moves.transaction()
        await move.start()
        await moves.execute("UPDATE leases SET needs_line = true")
        counts = asyncio.create_task(moves.execute("SELECT FROM pools FOR NO KEY UPDATE"))
        await waits_for_a_lock(owner, moves)

    assert (await asks)["outcome"] == "live"
    await counts
    await move.rollback()


async def test_who_renames_a_group_waits_for_its_leases_before_others_wait_for_the_group(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("INSERT INTO groups VALUES ('biology', 2)")
    await owner.execute("INSERT INTO members VALUES ($1, 'biology')", ADA)
    _, lease = await lent(database, service)
    await machine(database, "vm-2")
    moves, names = await connections(database, 2, "lablink")

    async with moves.transaction():
        await moves.execute("SELECT FROM vms WHERE hostname = 'vm-1' FOR UPDATE")
        await moves.execute("SELECT FROM leases WHERE id = $1 FOR UPDATE", lease)
        renames = asyncio.create_task(names.execute("UPDATE groups SET name = 'life'"))
        await waits_for_a_lock(owner, names)
        await moves.execute("UPDATE vms SET status = 'failed' WHERE hostname = 'vm-1'")
    await renames

    moved = await lease_of(owner, lease)
    assert (moved["hostname"], moved["group_name"]) == ("vm-2", "life")

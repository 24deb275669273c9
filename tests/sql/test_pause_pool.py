"""Paused means paused: nobody is served, nothing comes or goes, and nobody's time to wait passes."""

import asyncio

import asyncpg

from tests.sql.steps import (
    ADA,
    BOB,
    CYD,
    ask,
    ask_together,
    asked,
    lease_of,
    lent,
    machine,
    machines,
    refused,
    waits_for_a_lock,
)
from tests.sql.test_scaling import scale, sized, too_many_since
from tests.support.database import Database

PAUSE, RESUME = "SELECT pause_pool('default', true)", "SELECT pause_pool('default', false)"


async def test_nobody_is_served_before_the_pool_goes_on_and_then_who_came_first(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await machine(database)
    await owner.execute(PAUSE)
    first = (await ask(service, ADA))["lease_id"]
    others = [row["lease_id"] for row in await ask_together(service, asked(BOB), asked(CYD))]
    await service.execute("SELECT sweep_queue()")
    await machine(database, "vm-2")
    assert {(await lease_of(owner, lease))["status"] for lease in (first, *others)} == {"queued"}
    await owner.execute(RESUME)
    assert [(await lease_of(owner, lease))["status"] for lease in (first, *others)] == [
        "assigned",
        "assigned",
        "queued",
    ]


async def test_who_has_a_machine_keeps_it_and_gives_it_back_as_always(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await lent(database, service)
    await owner.execute(PAUSE)
    waits = (await ask(service, BOB))["lease_id"]
    await service.execute("SELECT end_lease($1)", lease)
    await vm.clean()
    assert (await lease_of(owner, waits))["status"] == "queued"


async def test_machines_neither_come_nor_go(database: Database, owner: asyncpg.Connection) -> None:
    await sized(owner)
    await machines(database, 3)
    await scale(owner)
    await too_many_since(owner, 600)
    await owner.execute(PAUSE)
    assert await scale(owner) == (0, [])
    await sized(owner, least=8)
    assert await scale(owner) == (0, [])
    await owner.execute(RESUME)
    assert await scale(owner) == (5, [])


async def test_time_to_wait_does_not_pass(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    lease = (await ask(service))["lease_id"]
    await owner.execute(PAUSE)
    await database.let_pass(2 * 86400)
    await service.execute("SELECT sweep_deadlines()")
    assert (await lease_of(owner, lease))["status"] == "queued"
    await owner.execute(RESUME)
    left = await owner.fetchval("SELECT extract(hours FROM deadline - clock()) FROM leases")
    assert left in (23, 24)
    await service.execute("SELECT sweep_secrets()")


async def test_nobody_is_told_when_while_nobody_can_know(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await lent(database, service)
    lease = (await ask(service, BOB))["lease_id"]
    await service.execute("SELECT sweep_forecasts()")
    await owner.execute(PAUSE)
    await service.execute("SELECT sweep_forecasts()")
    row = await service.fetchrow("SELECT eta_seconds, paused FROM lease_views WHERE id = $1", lease)
    assert row is not None
    assert tuple(row) == (None, True)


async def test_an_update_in_psql_does_the_same_and_the_history_has_it(owner: asyncpg.Connection) -> None:
    await owner.execute("UPDATE pools SET paused = true")
    assert await owner.fetchval("SELECT paused_at IS NOT NULL FROM pools")
    await owner.execute("UPDATE pools SET paused = false")
    kinds = [row["kind"] for row in await owner.fetch("SELECT kind FROM events ORDER BY id")]
    assert kinds == ["pool.paused", "pool.resumed"]


async def test_a_pool_goes_on_while_somebody_who_waits_locks_it(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await ask(service)
    await owner.execute(PAUSE)
    asking, watching = await database.connect("lablink"), await database.connect("lablink")
    async with asking.transaction():
        await asking.execute("SELECT FROM leases FOR UPDATE")
        resumed = asyncio.create_task(owner.execute("UPDATE pools SET paused = false"))
        await waits_for_a_lock(watching, owner)
        await asking.execute("SELECT FROM pools FOR NO KEY UPDATE NOWAIT")
    await resumed


async def test_a_pool_that_is_not_there_is_said_to_be_so(owner: asyncpg.Connection) -> None:
    with refused("LL005"):
        await owner.execute("SELECT pause_pool('gpu', true)")

"""A machine in hostile hands that forges notifications without end keeps nobody busy for long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from allocator.calls import Calls
from allocator.connection import pooled_connector
from allocator.feed import Feed
from allocator.floods import FLOOD_BYTES, OVERHEAD_BYTES
from allocator.hub import Hub
from allocator.service import following, storing
from tests.support import LIMIT_SECONDS
from tests.support.database import Database
from tests.support.machine import Pool, reached
from tests.support.service import settings_for

FORGE = "SELECT pg_notify('vm_updates', g::text) FROM generate_series(1, $1::integer) g"
SERVED = "SELECT record_event('lease.active', NULL, 'vm-1', NULL, '{}') FROM generate_series(1, $1::integer)"
FLOOD = FLOOD_BYTES // OVERHEAD_BYTES


@pytest_asyncio.fixture
async def feed(database: Database, tmp_path: Path) -> AsyncIterator[Feed]:
    """A feed that is listening."""
    settings = settings_for(database, tmp_path)
    async with (
        Calls.open(pooled_connector(settings.database, "hub")) as calls,
        storing(settings, hub := Hub(calls)) as store,
        following(settings, store, hub) as feed,
    ):
        await feed.listening.wait()
        yield feed


async def test_a_machine_that_floods_everybody_with_forged_hints_is_revoked(feed: Feed, database: Database) -> None:
    pool = await Pool.of(database)
    honest, hostile = await database.vm("vm-1"), await database.vm("vm-2")
    connection = await hostile.connect()
    gone = asyncio.Event()
    connection.add_termination_listener(lambda _: gone.set())

    with suppress(asyncpg.PostgresError, asyncpg.InterfaceError):
        await connection.execute(FORGE, 2 * FLOOD)

    async with asyncio.timeout(LIMIT_SECONDS):
        await gone.wait()
    await pool.until("SELECT array_agg(hostname) = '{vm-2}' FROM events WHERE kind = 'alert.flood'")  # the cut is first
    with pytest.raises(asyncpg.InvalidPasswordError):
        await hostile.connect()
    await honest.connect()


async def test_an_admin_who_changes_thousands_of_machines_is_not_taken_for_a_flood(
    feed: Feed, database: Database
) -> None:
    owner = await database.connect()
    with capture_logs() as told:
        await owner.execute(FORGE, 2 * FLOOD)
        await reached(lambda: any(line["event"] == "flood.heard" for line in told))

    assert {line["hostname"] for line in told if line["event"] == "flood.heard"} == {None}
    assert await owner.fetchval("SELECT count(*) FROM events WHERE kind = 'alert.flood'") == 0


async def test_a_machine_that_serves_many_leases_in_a_moment_is_not_taken_for_a_flood(database: Database) -> None:
    busy = await database.vm("vm-1")
    pid = (await busy.connect()).get_server_pid()
    owner = await database.connect()

    await owner.execute(SERVED, 100)
    assert await owner.fetchval("SELECT stop_flood($1)", pid) is None

    await database.let_pass(15)
    assert await owner.fetchval("SELECT stop_flood($1)", pid) == "vm-1"


async def test_of_several_allocators_that_hear_a_flood_one_stops_it(database: Database) -> None:
    hostile = await database.vm("vm-1")
    pid = (await hostile.connect()).get_server_pid()
    pool, keeper = await Pool.of(database), await database.connect()
    services = [await database.connect("lablink_app") for _ in range(3)]

    async with keeper.transaction():
        await keeper.execute("LOCK TABLE events")  # in which each looks whether the machine has much to tell
        stops = [asyncio.create_task(each.fetchval("SELECT stop_flood($1)", pid)) for each in services]
        await pool.until("SELECT count(*) = 3 FROM pg_locks WHERE relation = 'events'::regclass AND NOT granted")

    assert sorted(map(str, await asyncio.gather(*stops))) == ["None", "None", "vm-1"]
    assert await pool.owner.fetchval("SELECT count(*) FROM events WHERE kind = 'alert.flood'") == 1

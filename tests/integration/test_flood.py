"""A machine in hostile hands that forges notifications without end keeps nobody busy for long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from allocator.connection import connector
from allocator.feed import FLOOD, POOL, Feed
from allocator.tasks import alongside
from tests.support.database import Database
from tests.support.machine import Pool
from tests.support.service import LIMIT_SECONDS, settings_for

FORGE = "SELECT pg_notify('vm_updates', g::text) FROM generate_series(1, $1::integer) g"


@pytest_asyncio.fixture
async def feed(database: Database, tmp_path: Path) -> AsyncIterator[Feed]:
    """A feed that is listening."""
    feed = Feed(connector(settings_for(database, tmp_path).database, "web"), "default")
    async with alongside(feed.run()):
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
    await pool.until(
        "SELECT array_agg(hostname) = '{vm-2}' FROM events WHERE kind = 'alert.flood'"
    )  # it is cut off first
    with pytest.raises(asyncpg.InvalidPasswordError):
        await hostile.connect()
    await honest.connect()


async def test_an_admin_who_changes_thousands_of_machines_is_not_taken_for_a_flood(
    feed: Feed, database: Database
) -> None:
    owner = await database.connect()
    await owner.execute(FORGE, 2 * FLOOD)
    with feed.subscribe(POOL) as subscription:
        async with asyncio.timeout(LIMIT_SECONDS):
            assert await anext(aiter(subscription)) is not None

    assert await owner.fetchval("SELECT count(*) FROM events WHERE kind = 'alert.flood'") == 0

"""Long runs leave nothing behind: no connection of one that could not begin, no row that runs of one that ended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from allocator.operations import running
from allocator.upkeep.reach import connect
from tests.sql.steps import waits_for_a_lock
from tests.support import LIMIT_SECONDS
from tests.support.database import Database


@pytest.fixture
def noted(database: Database) -> "Noted":
    return Noted(database)


class Noted:
    """Connections of the owner's as operations open them; and an event for each one that was refused."""

    def __init__(self, database: Database) -> None:
        self._dsn = database.dsn("lablink")
        self.opened: list[asyncpg.Connection] = []
        self.refused = asyncio.Event()

    async def __call__(self) -> asyncpg.Connection:
        try:
            self.opened.append(await connect(self._dsn))
        except asyncpg.TooManyConnectionsError:
            self.refused.set()
            raise
        return self.opened[-1]


@asynccontextmanager
async def full(database: Database) -> AsyncIterator[None]:
    """The database has no connection left for anybody who is no superuser."""
    superuser = await database.connect("postgres")
    await superuser.execute(f"ALTER DATABASE {database.name} CONNECTION LIMIT 0")
    yield
    await superuser.execute(f"ALTER DATABASE {database.name} CONNECTION LIMIT -1")


async def test_a_run_that_gets_one_of_its_connections_only_does_not_keep_it(noted: Noted) -> None:
    async def only_once() -> asyncpg.Connection:
        if noted.opened:
            raise ConnectionRefusedError
        return await noted()

    with pytest.raises(ConnectionRefusedError):
        async with running(only_once, "backup", "ada"):
            pytest.fail("it began with one connection")

    assert [each.is_closed() for each in noted.opened] == [True]


async def test_a_run_whose_row_cannot_be_written_stands_in_nobodys_way(noted: Noted) -> None:
    with pytest.raises(asyncpg.CharacterNotInRepertoireError):
        async with running(noted, "no\0kind", "ada"):
            pytest.fail("it began without a row")

    assert [each.is_closed() for each in noted.opened] == [True, True]
    async with running(noted, "backup", "ada"):
        pass


async def test_a_run_goes_on_while_the_database_has_no_connection_left(database: Database, noted: Noted) -> None:
    async with running(noted, "backup", "ada") as operation, full(database):
        operation.rows.terminate()
        await operation.progress(7, 7)

        assert noted.refused.is_set()


async def test_that_a_run_is_unwanted_is_seen_once_there_are_connections_again(
    database: Database, owner: asyncpg.Connection, noted: Noted
) -> None:
    async with asyncio.timeout(LIMIT_SECONDS), running(noted, "fleet grow", "ada") as operation:
        async with full(database):
            unwanted = asyncio.create_task(operation.unwanted())
            await noted.refused.wait()
        await owner.execute("UPDATE operations SET cancelled_by = 'bob' WHERE id = $1", operation.id)

        assert await unwanted == "bob"


async def test_what_is_still_being_said_of_a_run_is_in_nobodys_way_at_its_end(
    database: Database, owner: asyncpg.Connection, noted: Noted
) -> None:
    locker = await database.connect()
    async with asyncio.timeout(LIMIT_SECONDS):
        async with running(noted, "backup", "ada") as operation:
            await locker.execute("BEGIN; LOCK TABLE operations")
            telling = asyncio.create_task(operation.progress(7, 7))
            await waits_for_a_lock(owner, operation.rows)
            releasing = asyncio.create_task(locker.execute("ROLLBACK"))
        await asyncio.gather(telling, releasing)

    row = await owner.fetchrow("SELECT status, done FROM operations WHERE kind = 'backup'")
    assert row
    assert dict(row) == {"status": "done", "done": 7}


async def test_the_end_of_a_run_is_written_down_though_somebody_is_in_a_hurry(
    database: Database, owner: asyncpg.Connection, noted: Noted
) -> None:
    locker, is_to_end = await database.connect(), asyncio.Event()

    async def run() -> None:
        async with running(noted, "backup", "ada"):
            await locker.execute("BEGIN; LOCK TABLE operations")
            is_to_end.set()

    hurried = asyncio.create_task(run())
    await is_to_end.wait()
    await waits_for_a_lock(owner, noted.opened[1])
    hurried.cancel()
    await locker.execute("ROLLBACK")
    with pytest.raises(asyncio.CancelledError):
        await hurried

    assert await owner.fetchval("SELECT status FROM operations WHERE kind = 'backup'") == "done"

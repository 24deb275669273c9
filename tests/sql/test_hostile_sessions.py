"""Sessions with which a machine or a dashboard would keep something from all others are ended."""

import asyncio

import asyncpg

from tests.sql.steps import is_cut_off, machine
from tests.support import LIMIT_SECONDS
from tests.support.database import Database

UNREAD_NOTIFICATIONS = 2_000
SUBTRANSACTIONS = 101
WAITS_TO_WRITE = "SELECT wait_event = 'ClientWrite' FROM pg_stat_activity WHERE pid = $1"
NOTHING_PILES_UP = "SELECT pg_notification_queue_usage() = 0"


def wire_of(connection: asyncpg.Connection) -> asyncio.Transport:
    """What the connection reads from."""
    transport: asyncio.Transport = connection._transport  # type: ignore[attr-defined]
    return transport


async def hoard_locks(connection: asyncpg.Connection) -> None:
    """Takes a place in the server's table of locks for each of many subtransactions."""
    await connection.execute("BEGIN")
    for _ in range(SUBTRANSACTIONS):
        await connection.execute("SAVEPOINT deeper; SELECT client_api.hello(0, NULL)")


async def listen_and_do_not_read(connection: asyncpg.Connection, database: Database) -> None:
    """Listens, and lets what is sent pile up until the server can send no more."""
    await connection.execute("LISTEN pile")
    wire_of(connection).pause_reading()
    superuser, notifier = await database.connect("postgres"), await database.connect()
    async with asyncio.timeout(LIMIT_SECONDS):
        while not await superuser.fetchval(WAITS_TO_WRITE, connection.get_server_pid()):
            if await superuser.fetchval(NOTHING_PILES_UP):
                await notifier.execute(
                    "SELECT pg_notify('pile', repeat('x', 7000) || n) FROM generate_series(1, $1::integer) AS n",
                    UNREAD_NOTIFICATIONS,
                )


async def test_a_machine_that_does_not_read_what_it_listens_to_is_cut_off(
    database: Database, owner: asyncpg.Connection
) -> None:
    hostile = await machine(database)
    await listen_and_do_not_read(hostile.connection, database)

    assert await owner.fetchval("SELECT cut_sessions(0)") == 1

    wire_of(hostile.connection).resume_reading()
    assert await is_cut_off(hostile.connection)


async def test_a_machine_that_hoards_locks_is_cut_off_at_once_whoever_sweeps(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    hostile = await machine(database)
    await hoard_locks(hostile.connection)
    async with owner.transaction():
        await owner.execute("SELECT FROM sweeps WHERE name = 'roles' FOR UPDATE")

        assert await service.fetchval("SELECT sweep_roles()") == 0

    assert await is_cut_off(hostile.connection)


async def test_a_dashboard_that_keeps_a_transaction_open_is_cut_off_after_a_while(
    database: Database, owner: asyncpg.Connection
) -> None:
    reader = await database.connect("lablink_reader")
    await reader.execute("BEGIN")

    assert await owner.fetchval("SELECT cut_sessions(10)") == 0
    assert await owner.fetchval("SELECT cut_sessions(0)") == 1

    assert await is_cut_off(reader)

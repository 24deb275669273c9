"""Takes a database's name away in one moment for everybody, and keeps it under a new one; another may get the name."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import asyncpg

from allocator import bootstrap
from allocator.tasks import alongside
from allocator.upkeep import UpkeepFailed
from allocator.upkeep.reach import connected, database_of, in_database
from allocator.upkeep.scratch import scratch_database
from client.network import Connection

BETWEEN_LOOKS_SECONDS = 0.02

DATABASE = "SELECT oid FROM pg_database WHERE datname = $1"
CUT = """
    SELECT count(*), count(*) FILTER (WHERE NOT r.rolsuper AND pg_terminate_backend(a.pid))
    FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid WHERE a.datid = $1 AND a.pid <> $2
"""
NOBODY_COMES_IN = """
    SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $2 AND locktype = 'object' AND objid = $1 AND granted
                   AND classid = 'pg_database'::regclass AND mode = 'AccessExclusiveLock')
"""
SETTINGS = """
    SELECT split_part(setting, '=', 1) AS name, quote_literal(substr(setting, strpos(setting, '=') + 1)) AS value
    FROM pg_db_role_setting s, unnest(s.setconfig) AS setting WHERE s.setdatabase = $1 AND s.setrole = 0
"""


async def swap(dsn: str, successor: str, kept: str, pause: Connection) -> None:
    """The database `successor` gets the name that `dsn` leads to, and what has it becomes `kept`: both or neither.

    Everybody's sessions there are ended, `pause` last, so that nothing is accepted in between. Raises UpkeepFailed.
    """
    await _copy_settings(dsn, successor)
    name = database_of(dsn)
    async with put_away(dsn, kept, pause) as mover:
        await mover.execute(f"ALTER DATABASE {successor} RENAME TO {name}")
        await mover.execute(f"REVOKE ALL ON DATABASE {kept} FROM PUBLIC, {bootstrap.SERVICE}, {bootstrap.CLIENTS}")
        await mover.execute(bootstrap.access_to(name))


@asynccontextmanager
async def put_away(dsn: str, kept: str, pause: Connection) -> AsyncIterator[Connection]:
    """The database at `dsn` is named `kept` once the block ends; when it raises, all is as it was.

    Everybody's sessions there are ended, `pause` last, and nobody comes in before the block has ended. Yields the
    connection whose transaction that is. Raises UpkeepFailed.
    """
    async with (
        scratch_database(dsn, "hall", kept) as hall,  # a database can be renamed only from another one
        connected(hall) as mover,
        connected(hall) as usher,
    ):
        with _explained():
            async with mover.transaction():
                await _rename(mover, usher, database_of(dsn), kept, pause)
                yield mover


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except asyncpg.ObjectInUseError as error:
        raise UpkeepFailed(f"Somebody stays connected: end that session and try again ({error.detail}).") from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise UpkeepFailed(
            "The owner may not end others' sessions. Stop the allocator and the machines meanwhile, or as the "
            f"superuser: GRANT pg_signal_backend TO {bootstrap.OWNER}"
        ) from error


async def _rename(mover: Connection, usher: Connection, name: str, kept: str, pause: Connection) -> None:
    """PostgreSQL lets nobody new in while it waits (5 s at most) for the last session to end."""
    async with alongside(_empty(usher, name, mover.get_server_pid(), pause)):
        await mover.execute(f"ALTER DATABASE {name} RENAME TO {kept}")


async def _empty(usher: Connection, name: str, mover: int, pause: Connection) -> None:
    """End every session in the database; that of `pause` when no other is left and none can come."""
    database = await usher.fetchval(DATABASE, name)
    while True:
        others = await usher.fetchval(CUT, database, pause.get_server_pid())
        if not others and await usher.fetchval(NOBODY_COMES_IN, database, mover):
            return await pause.close()
        await asyncio.sleep(BETWEEN_LOOKS_SECONDS)


async def _copy_settings(dsn: str, successor: str) -> None:
    """What ALTER DATABASE … SET gave to the one, for the other: a dump does not have it."""
    async with connected(dsn) as connection:
        oid = await connection.fetchval(DATABASE, database_of(dsn))
        for setting in await connection.fetch(SETTINGS, oid):
            await connection.execute(f"ALTER DATABASE {successor} SET {setting['name']} = {setting['value']}")


async def forget_secrets(dsn: str, kept: str) -> None:
    """Delete undelivered codes and PINs in the database that was kept, where no sweep comes any more."""
    async with connected(in_database(dsn, kept)) as connection:
        with suppress(asyncpg.UndefinedTableError):
            await connection.execute("DELETE FROM lease_secrets")

"""A database beside ours for the time of a block: always dropped, and so is what a killed run left."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg

from allocator import bootstrap
from allocator.upkeep.reach import connected, database_of, in_database
from client.network import Connection

BEGINNING = 40
"""Letters of our database's name with which that of a scratch database begins; a name has 63 at most."""

PATIENCE_SECONDS = 60.0
"""How long whoever was ended in a database may take to leave it: on a machine that stands still, longer than usual."""

LEFT = "SELECT datname FROM pg_database WHERE starts_with(datname, $1)"
NEW = "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'"


@asynccontextmanager
async def scratch_database(dsn: str, purpose: str = "scratch", later: str | None = None) -> AsyncIterator[str]:
    """The connection string of an empty database on the same server, which nobody but its owner may enter.

    `dsn` is the owner's. The caller runs an operation, so that leftovers of the same purpose are nobody's. A database
    that is renamed within the block stays. `later` is the name that the database at `dsn` may have at the end.
    """
    prefix = f"{database_of(dsn)[:BEGINNING]}_{purpose}_"
    name = prefix + secrets.token_hex(4)
    async with connected(dsn) as connection:
        for left in await connection.fetch(LEFT, prefix):
            await drop(connection, left["datname"])
    try:
        async with connected(dsn) as connection:
            # Nobody comes in before everybody's right to is gone, which a new database gives.
            await connection.execute(f"{NEW.format(name)} ALLOW_CONNECTIONS false")
            await connection.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
            await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        yield in_database(dsn, name)
    finally:
        await _drop(dsn, name, later)


@asynccontextmanager
async def reference_database(dsn: str) -> AsyncIterator[str]:
    """The same for the code's own schema. This is no operation and several may run at once.

    So, unlike with a scratch database, what a killed run left is only dropped when nobody is in it.
    """
    prefix = f"{database_of(dsn)[:BEGINNING]}_reference_"
    name = prefix + secrets.token_hex(4)
    async with connected(dsn) as connection:
        for left in await connection.fetch(LEFT, prefix):
            with suppress(asyncpg.ObjectInUseError, asyncpg.InvalidCatalogNameError):
                await connection.execute(f"DROP DATABASE {left['datname']}")
        await connection.execute(NEW.format(name))
        try:
            async with connected(in_database(dsn, name)) as kept:  # so that nobody takes it for a left one
                await kept.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC; {bootstrap.INSIDE}")
                yield in_database(dsn, name)
        finally:
            await drop(connection, name)


async def _drop(dsn: str, name: str, later: str | None) -> None:
    try:
        async with connected(dsn) as connection:
            await drop(connection, name)
    except asyncpg.InvalidCatalogNameError:
        if later is None:
            raise
        await _drop(in_database(dsn, later), name, None)


async def drop(connection: Connection, name: str) -> None:
    """Drop a database, and end whoever is in it; PostgreSQL waits five seconds for them, and then refuses."""
    now = asyncio.get_running_loop().time
    until = now() + PATIENCE_SECONDS
    while True:
        try:
            await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        except asyncpg.ObjectInUseError:
            if now() > until:
                raise
        else:
            return

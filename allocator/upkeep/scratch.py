"""A database beside ours for the time of a block: always dropped, and so is what a killed run left."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from allocator.upkeep.reach import connected, database_of, in_database

BEGINNING = 40
"""Letters of our database's name with which that of a scratch database begins; a name has 63 at most."""


@asynccontextmanager
async def scratch_database(dsn: str, purpose: str = "scratch", later: str | None = None) -> AsyncIterator[str]:
    """The connection string of an empty database on the same server, which nobody but its owner may enter.

    `dsn` is the owner's. The caller runs an operation, so that leftovers of the same purpose are nobody's. A database
    that is renamed within the block stays. `later` is the name that the database at `dsn` may have at the end.
    """
    prefix = f"{database_of(dsn)[:BEGINNING]}_{purpose}_"
    name = prefix + secrets.token_hex(4)
    async with connected(dsn) as connection:
        for left in await connection.fetch("SELECT datname FROM pg_database WHERE starts_with(datname, $1)", prefix):
            await connection.execute(_dropping(left["datname"]))
    try:
        async with connected(dsn) as connection:
            await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
            await connection.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
        yield in_database(dsn, name)
    finally:
        await _drop(dsn, name, later)


async def _drop(dsn: str, name: str, later: str | None) -> None:
    try:
        async with connected(dsn) as connection:
            await connection.execute(_dropping(name))
    except asyncpg.InvalidCatalogNameError:
        if later is None:
            raise
        await _drop(in_database(dsn, later), name, None)


def _dropping(name: str) -> str:
    return f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"

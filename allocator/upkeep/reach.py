"""Opens the owner's connections for work on whole tables, which no time limit may cut short."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from allocator.connection import PROBES
from client.network import Connection, KeptAlive, hang_up

CONNECT_SECONDS = 10.0

UNLIMITED = {
    "application_name": "lablink upkeep",
    "lablink.actor": "upkeep",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    **PROBES,
}


async def connect(dsn: str) -> Connection:
    """A new connection. Raises what asyncpg does, and OSError."""
    return await asyncpg.connect(dsn, timeout=CONNECT_SECONDS, server_settings=UNLIMITED, connection_class=KeptAlive)


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Connection]:
    """A connection for the time of the block."""
    connection = await connect(dsn)
    try:
        yield connection
    finally:
        await hang_up(connection, CONNECT_SECONDS)


def in_database(dsn: str, name: str) -> str:
    """`dsn`, leading to another database of the same server."""
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


def database_of(dsn: str) -> str:
    """The name of the database that `dsn` leads to."""
    return urlsplit(dsn).path.lstrip("/")

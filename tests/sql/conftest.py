"""The people at the database: the owner in psql, the service; and the rule that no test leaves a rule broken."""

from collections.abc import AsyncIterator

import asyncpg
import pytest_asyncio

from tests.sql.steps import LONG_AGO
from tests.support.database import Database


@pytest_asyncio.fixture
async def owner(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """An admin in psql; after the test no invariant may be broken."""
    connection = await database.connect("lablink")
    yield connection
    assert await connection.fetch("SELECT * FROM broken_invariants()") == []


@pytest_asyncio.fixture
async def service(database: Database) -> asyncpg.Connection:
    """The allocator's own role, acting for the web page."""
    return await database.connect("lablink_app", **{"lablink.actor": "web"})


@pytest_asyncio.fixture
async def server_since_long(database: Database) -> None:
    """PostgreSQL has run for an hour, so that its own start excuses nobody."""
    await database.let_pass(LONG_AGO)

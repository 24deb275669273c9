"""Fixtures for everybody: a PostgreSQL server for the session and a fresh, migrated database for each test."""

from collections.abc import AsyncIterator
from itertools import count

import pytest_asyncio

from tests.support.database import WORKER, Database, cloned_database, migrated_template
from tests.support.server import TestServer, found_server

_numbers = count()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server() -> AsyncIterator[TestServer]:
    """A PostgreSQL server; see tests/support/server.py for which one."""
    async with found_server() as found:
        yield found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def template(server: TestServer) -> AsyncIterator[str]:
    """The name of a migrated database to clone."""
    async with migrated_template(server) as name:
        yield name


@pytest_asyncio.fixture
async def database(server: TestServer, template: str) -> AsyncIterator[Database]:
    """A migrated database of this test's own, whose time zone is not UTC."""
    async with cloned_database(server, template, f"lablink_test_{WORKER}_{next(_numbers)}") as own:
        yield own

"""Which allocators may serve a database: those of its version and of the one before."""

import asyncpg
import pytest

from allocator import migrate
from allocator.store import VERSION
from tests.support.database import Database

CHECK = "SELECT check_program($1)"


async def test_allocators_of_this_version_and_of_the_one_before_may_serve(service: asyncpg.Connection) -> None:
    for version in (VERSION - 1, VERSION):
        await service.execute(CHECK, version)

    for version, sqlstate in ((VERSION - 2, "LL011"), (VERSION + 1, "42883")):
        with pytest.raises(asyncpg.PostgresError) as refused:
            await service.execute(CHECK, version)
        assert refused.value.sqlstate == sqlstate


async def test_the_program_says_the_version_that_its_migrations_lead_to(database: Database) -> None:
    newest = (await migrate.history(database.dsn("lablink")))[-1].version

    assert newest == f"{VERSION}"

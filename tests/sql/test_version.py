"""Which allocators may serve a database: those of its version, of the one before, and newer ones."""

import asyncpg
import pytest

from allocator import migrate
from allocator.store import VERSION
from tests.support.database import Database

CHECK = "SELECT check_version($1)"


async def test_allocators_of_this_version_and_of_the_one_before_may_serve(service: asyncpg.Connection) -> None:
    for version in (VERSION - 1, VERSION, VERSION + 1):
        await service.execute(CHECK, version)

    with pytest.raises(asyncpg.PostgresError) as refused:
        await service.execute(CHECK, VERSION - 2)

    assert refused.value.sqlstate == "LL011"


async def test_the_program_says_the_version_that_its_migrations_lead_to(database: Database) -> None:
    newest = (await migrate.history(database.dsn("lablink")))[-1].version

    assert newest == f"{VERSION}"

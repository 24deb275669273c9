"""While the database is paused everything is read and nothing is accepted."""

import asyncpg
import pytest

from allocator.upkeep.pause import paused
from tests.sql.steps import ADA, ask
from tests.support.database import Database


async def test_while_paused_pages_are_read_and_hellos_answered_and_requests_are_not(database: Database) -> None:
    vm = await database.vm("vm-1")
    client, service = await vm.connect(), await database.connect("lablink_app", lock_timeout="50ms")

    async with paused(database.dsn("lablink")):
        assert await client.fetchval("SELECT status FROM client_api.hello(0, NULL)") == "available"
        assert await service.fetchval("SELECT unassigned_vms_count()") == 1
        with pytest.raises(asyncpg.LockNotAvailableError):
            await ask(service, ADA)

    assert (await ask(service, ADA))["outcome"] == "created"

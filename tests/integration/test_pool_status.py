"""How pools are, and why somebody waits, is dear to know and asked by everybody: it takes one connection at most."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import httpx
import pytest
import pytest_asyncio

from allocator.connection import pooled_connector
from allocator.store import Store
from tests.support import LIMIT_SECONDS
from tests.support.database import Database
from tests.support.patience import patient_role
from tests.support.service import settings_for, streaming

LOOKS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{}%'"


@pytest_asyncio.fixture
async def store(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    """The database as a patient allocator asks it, whose reasons do not age."""
    await patient_role(database)
    monkeypatch.setattr("allocator.store.REASONS_SECONDS", 3600.0)
    settings = settings_for(database, tmp_path).database
    async with Store.open(pooled_connector(settings, "web"), settings.connections) as store:
        yield store


async def at_once(watching: asyncpg.Connection, asked: str) -> int:
    """How many connections ask that, once one has waited for half a second."""
    looks = LOOKS.format(asked)
    async with asyncio.timeout(LIMIT_SECONDS):
        while not await watching.fetchval(f"{looks} AND query_start < clock_timestamp() - interval '500 ms'"):
            pass
    return int(await watching.fetchval(looks))


async def test_however_many_ask_how_pools_are_one_connection_is_taken_for_it(
    database: Database, owner: asyncpg.Connection, store: Store
) -> None:
    watching = await database.connect("lablink")
    async with owner.transaction():
        await owner.execute("LOCK TABLE pools IN ACCESS EXCLUSIVE MODE")
        asking = [asyncio.create_task(store.pool_status()) for _ in range(20)]
        looks = await at_once(watching, "pool_status")
    answers = await asyncio.gather(*asking)

    assert looks == 1
    assert [pool.name for pool in answers[-1]] == ["default"]
    assert all(answer == answers[0] for answer in answers)


async def test_however_many_ask_why_pools_are_so_one_connection_is_taken_for_it(
    database: Database, owner: asyncpg.Connection, store: Store
) -> None:
    watching = await database.connect("lablink")
    async with owner.transaction():
        await owner.execute("LOCK TABLE pools IN ACCESS EXCLUSIVE MODE")
        asking = [asyncio.create_task(store.why_pools()) for _ in range(20)]
        looks = await at_once(watching, "why_pools")
    answers = await asyncio.gather(*asking)

    assert looks == 1
    assert all(answer is answers[0] for answer in answers)
    assert [each.what for each in answers[0]["default"]] == ["a machine is free", "nobody waits", "next"]


async def test_however_many_ask_why_they_wait_others_are_answered(
    database: Database, owner: asyncpg.Connection, store: Store
) -> None:
    watching = await database.connect("lablink")
    async with owner.transaction():
        await owner.execute("LOCK TABLE leases IN ACCESS EXCLUSIVE MODE")
        asking = [asyncio.create_task(store.why_lease(uuid4())) for _ in range(20)]
        looks = await at_once(watching, "why_lease")
        pools = await store.pool_rules("default")
    await asyncio.gather(*asking)

    assert (looks, pools.name) == (1, "default")


async def test_pools_are_shown_also_where_nobody_can_say_why_they_are_so(
    owner: asyncpg.Connection, client: httpx.AsyncClient
) -> None:
    await owner.execute("DROP FUNCTION why_lending(text)")
    async with streaming(client, "/status/stream") as stream:
        assert "There are no machines yet" in await stream.next("pools")
    page = await client.get("/status")
    assert (page.status_code, "There are no machines yet" in page.text) == (200, True)
    assert "Why is it so?" not in page.text

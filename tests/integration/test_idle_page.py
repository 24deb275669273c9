"""Whoever leaves a machine unused is told so on its page, and may say there or over the API that they are there."""

import httpx
import pytest_asyncio

from tests.integration.test_pages import ask, heading
from tests.support.database import Database
from tests.support.service import PlayedClient, RunningService, streaming

LONG_AGO = "UPDATE leases SET active_at = active_at - interval '1 day', idle_until = NULL"


@pytest_asyncio.fixture
async def lease(database: Database, client: httpx.AsyncClient, service: RunningService) -> str:
    """The page of a desktop that nobody has used for fifty minutes, in a pool that lets that be an hour."""
    owner = await database.connect()
    machine = await PlayedClient.of(await database.vm("vm-1"))
    page = await ask(client)
    await machine.claim()
    await machine.report("started")
    await owner.execute("UPDATE pools SET idle_seconds = 3600, idle_warn_seconds = 600")
    await owner.execute(LONG_AGO)
    await machine.connection.execute("SELECT client_api.hello(0, NULL, 3001)")
    return page


def api(page: str) -> str:
    return f"/api/v1{page}"


async def test_the_page_warns_and_one_button_takes_it_back(lease: str, client: httpx.AsyncClient) -> None:
    async with streaming(client, f"{lease}/stream") as stream:
        while 'id="here"' not in (told := await stream.next("lease")):
            pass
        assert "Nobody has used it for 51 minutes; it ends in 10 minutes" in told
        assert "Still there?" in told
        await client.post(f"{lease}/activity")
        told = await stream.next("lease")
        assert 'id="here"' not in told
        assert heading(told) == "Your command is running"


async def test_a_program_says_that_somebody_is_there(lease: str, client: httpx.AsyncClient, database: Database) -> None:
    async with streaming(client, f"{lease}/stream") as stream:
        while 'id="here"' not in await stream.next("lease"):
            pass
    assert (await client.get(api(lease))).json()["idle_until"] is not None
    answer = await client.put(f"{api(lease)}/activity")
    assert answer.status_code == 200
    assert answer.json()["idle_until"] is None
    actor = await (await database.connect()).fetchval("SELECT actor FROM events WHERE kind = 'lease.used'")
    assert actor == "web"


async def test_who_did_not_come_reads_why_it_is_over(lease: str, client: httpx.AsyncClient, database: Database) -> None:
    owner = await database.connect()
    async with streaming(client, f"{lease}/stream") as stream:
        while 'id="here"' not in await stream.next("lease"):
            pass
        await owner.execute("UPDATE leases SET idle_until = clock()")
        while "Nobody had used it for long" not in await stream.next("lease"):
            pass
    ended = (await client.get(api(lease))).json()
    assert (ended["status"], ended["left_idle"], ended["ended_by"]) == ("ended", True, "service")
    assert ended["trouble_detail"].startswith("Nobody had used it")


async def test_nobody_else_says_that_they_are_there(lease: str, service: RunningService) -> None:
    async with service.client() as stranger:
        assert (await stranger.put(f"{api(lease)}/activity")).status_code == 401

"""What a pool accepts holds from the moment that an admin changes it, however much the service remembers."""

import asyncio
from pathlib import Path

import asyncpg
import httpx
import pytest_asyncio

from allocator.connection import pooled_connector
from allocator.store import Store
from tests.support.database import Database
from tests.support.service import settings_for

LEASES = "/api/v1/leases"


@pytest_asyncio.fixture
async def owner(database: Database, client: httpx.AsyncClient) -> asyncpg.Connection:
    """An admin, after a request that showed the service what the pool accepts."""
    assert (await request(client, "echo hi", "first@example.org")).status_code == 201
    return await database.connect("lablink")


async def request(client: httpx.AsyncClient, line: str, email: str = "ada@example.org") -> httpx.Response:
    return await client.post(LEASES, json={"email": email, "crd_command": line})


async def test_a_program_that_is_new_is_accepted_at_once(owner: asyncpg.Connection, client: httpx.AsyncClient) -> None:
    assert (await request(client, "true")).status_code == 422

    await owner.execute("UPDATE pools SET programs = programs || '{true}'")

    assert (await request(client, "true")).status_code == 201


async def test_a_program_that_is_no_more_is_refused_at_once_and_in_the_usual_words(
    owner: asyncpg.Connection, client: httpx.AsyncClient
) -> None:
    await owner.execute("UPDATE pools SET programs = '{true}', accepts_desktop = false")

    refused = await request(client, "echo hi")

    assert refused.status_code == 422
    assert refused.json()["errors"] == [
        {"field": "crd_command", "detail": "echo is not a program that this pool runs. It accepts: true."}
    ]


async def test_a_pool_that_is_gone_is_none(owner: asyncpg.Connection, client: httpx.AsyncClient) -> None:
    wanted = {"email": "ada@example.org", "crd_command": "echo hi", "pool": "gpu"}
    await owner.execute("INSERT INTO pools (name, programs) VALUES ('gpu', '{echo}')")
    assert (await client.post(LEASES, json=wanted | {"crd_command": "true"})).status_code == 422
    await owner.execute("DELETE FROM pools WHERE name = 'gpu'")

    refused = await client.post(LEASES, json=wanted)

    assert (refused.status_code, refused.json()["type"]) == (422, "urn:lablink:no-such-pool")


async def test_many_who_ask_what_a_pool_accepts_take_one_connection_together(
    database: Database, tmp_path: Path
) -> None:
    settings = settings_for(database, tmp_path)
    admin = await database.connect("lablink")
    async with Store.open(pooled_connector(settings.database, "web"), most=5) as store:
        rules = await asyncio.gather(*(store.pool_rules("default") for _ in range(100)))
        sessions = await admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lablink web'")

    assert {each.name for each in rules} == {"default"}
    assert sessions == 1

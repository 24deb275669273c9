"""The service asks through PgBouncer in transaction mode: nothing that it promises rests on a session."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest_asyncio

from allocator.connection import LIMITS, pooled_connector
from client.network import Connection
from tests.support.database import Database
from tests.support.pooler import pooler_before
from tests.support.service import LIMIT_SECONDS, RunningService, ready, running_service, settings_for, streaming

WANTED = {"email": "ada@example.org", "crd_command": "echo hello"}
END_ALL = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1 AND usename = 'lablink_app'"
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND application_name = 'lablink web'"


@pytest_asyncio.fixture
async def service(database: Database, tmp_path: Path) -> AsyncIterator[RunningService]:
    async with pooler_before(database.server) as port:
        settings = settings_for(database, tmp_path, f"database.pooler_port={port}", "database.connections=30")
        async with running_service(settings) as running:
            await ready(running.service)
            yield running


async def test_many_requests_at_once_share_few_connections_and_none_gets_anothers_answer(
    service: RunningService, database: Database
) -> None:
    emails = [f"{uuid4()}@example.org" for _ in range(40)]
    async with service.client() as client:

        async def ask(email: str) -> tuple[int, str]:
            answer = await client.post("/api/v1/leases", json=WANTED | {"email": email})
            return answer.status_code, answer.json()["email"]

        answers = await asyncio.gather(*map(ask, emails))

    owner = await database.connect()
    assert answers == [(201, email) for email in emails]
    assert await owner.fetchval(SESSIONS, database.name) <= 3
    assert await owner.fetch("SELECT * FROM broken_invariants()") == []


async def test_the_history_says_web_and_an_open_page_hears_of_it(service: RunningService, database: Database) -> None:
    owner = await database.connect()
    async with service.client() as client, streaming(client, "/stream") as stream:
        await database.vm("vm-1")
        while "1 of 1 machines is free" not in await stream.next("pool"):
            pass
        asked = await client.post("/api/v1/leases", json=WANTED)

    assert asked.status_code == 201
    assert await owner.fetchval("SELECT actor FROM events WHERE kind = 'lease.queued'") == "web"


async def test_no_statement_waits_longer_than_without_a_pooler(service: RunningService, database: Database) -> None:
    """A session's settings are lost on the way; the role brings the same ones."""
    connect = pooled_connector(service.service.settings.database, "web")
    connection: Connection = await connect()
    try:
        for name, value in LIMITS.items():
            assert await connection.fetchval("SELECT current_setting($1)", name) == value
    finally:
        await connection.close()


async def test_connections_that_the_pooler_loses_are_opened_again(service: RunningService, database: Database) -> None:
    superuser = await database.connect("postgres")
    async with service.client() as client:
        assert (await client.get("/readyz")).status_code == 200

        await superuser.execute(END_ALL, database.name)

        async with asyncio.timeout(LIMIT_SECONDS):
            while (await client.get("/readyz")).status_code != 200:
                pass

"""The service asks through PgBouncer in transaction mode: nothing that it promises rests on a session."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from allocator.connection import LIMITS, pooled_connector
from client.network import Connection
from tests.support import LIMIT_SECONDS
from tests.support.database import Database
from tests.support.pooler import Pooler, pooler_before
from tests.support.service import (
    NO_TLS,
    RunningService,
    overrides_for,
    ready,
    running_service,
    settings_for,
    streaming,
)
from tests.support.up import LABLINK
from tests.support.wire import Wire

LEASES = "/api/v1/leases"
WANTED = {"email": "ada@example.org", "crd_command": "echo hello"}
END_ALL = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1 AND usename = 'lablink_app'"
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND application_name = 'lablink web'"


@pytest_asyncio.fixture
async def pooler(database: Database, wire: Wire) -> AsyncIterator[Pooler]:
    """A pooler of this test's own, whichever the session has."""
    async with pooler_before(database.server, wire.port) as pooler:
        yield pooler


@pytest_asyncio.fixture
async def service(database: Database, pooler: Pooler, tmp_path: Path) -> AsyncIterator[RunningService]:
    """A service that is ready, with more connections to the pooler than that has to the database."""
    settings = settings_for(database, tmp_path, f"database.pooler_port={pooler.port}", "database.connections=10")
    async with running_service(settings) as running:
        await ready(running.service)
        yield running


async def becomes_ready(client: httpx.AsyncClient) -> None:
    """Return once the service says that it is ready."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while (await client.get("/readyz")).status_code != 200:
            pass


async def test_many_requests_at_once_share_few_connections_and_none_gets_anothers_answer(
    service: RunningService, database: Database
) -> None:
    emails = [f"{uuid4()}@example.org" for _ in range(40)]
    async with service.client() as client, asyncio.timeout(LIMIT_SECONDS):

        async def ask(email: str) -> tuple[int, str]:
            while (answer := await client.post(LEASES, json=WANTED | {"email": email})).status_code == 503:
                pass
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
        asked = await client.post(LEASES, json=WANTED)

    assert asked.status_code == 201
    assert await owner.fetchval("SELECT actor FROM events WHERE kind = 'lease.assigned'") == "web"


@pytest.mark.usefixtures("usual_limits")
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

        await becomes_ready(client)


async def test_while_the_pooler_is_dead_requests_are_refused_and_open_pages_go_on(
    service: RunningService, pooler: Pooler, database: Database
) -> None:
    async with service.client() as client, streaming(client, "/stream") as stream:
        assert (await client.get("/readyz")).status_code == 200

        await pooler.kill()
        refused = [await client.post(LEASES, json=WANTED) for _ in range(2)]
        await database.vm("vm-1")
        while "1 of 1 machines is free" not in await stream.next("pool"):
            pass
        await pooler.start()
        answered = await client.post(LEASES, json=WANTED)

    assert (answered.status_code, answered.json()["status"]) == (201, "assigned")
    for answer in refused:
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:lablink:database-unavailable"
        assert int(answer.headers["retry-after"]) > 0


async def test_a_database_that_goes_away_behind_the_pooler_is_noticed_and_so_is_its_return(
    service: RunningService, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service.client() as client:
        assert (await client.get("/readyz")).status_code == 200
        monkeypatch.setattr("allocator.health.READY_SECONDS", 0.9)
        with wire.down():
            assert (await client.get("/readyz")).status_code == 503

        await becomes_ready(client)


async def test_a_process_of_its_own_asks_by_way_of_the_pooler(
    database: Database, pooler: Pooler, tmp_path: Path
) -> None:
    by_pooler = ("database.pooler_host=localhost", f"database.pooler_port={pooler.port}", "log.level=error")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd, url = listener.fileno(), f"http://127.0.0.1:{listener.getsockname()[1]}"
        serve = ["serve", f"--fd={fd}", *overrides_for(database, tmp_path), *by_pooler]
        process = await asyncio.create_subprocess_exec(LABLINK, *serve, pass_fds=[fd])
        async with httpx.AsyncClient(base_url=url, timeout=LIMIT_SECONDS, verify=NO_TLS) as client:
            await becomes_ready(client)
            async with asyncio.timeout(LIMIT_SECONDS):
                while (lent := await client.post(LEASES, json=WANTED)).status_code == 503:
                    pass
            await pooler.kill()
            refused = await client.get("/readyz")
        process.terminate()
        await process.wait()

    assert (lent.status_code, refused.status_code) == (201, 503)

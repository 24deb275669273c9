"""The database goes away and comes back: 503 that says when to try again meanwhile, and no restart afterwards."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.support import LIMIT_SECONDS
from tests.support.database import Database
from tests.support.service import RunningService, ready, running_service, settings_for, streaming
from tests.support.wire import Wire

WANTED = {"email": "ada@example.org", "crd_command": "echo hi"}
LEASES = "/api/v1/leases"
ENDED = """
    SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity
    WHERE usename = $1 AND datname = current_database()
"""


@pytest_asyncio.fixture
async def wired(database: Database, wire: Wire, tmp_path: Path) -> AsyncIterator[RunningService]:
    """A service that is ready, its database at the other end of the wire."""
    async with running_service(settings_for(database, tmp_path, wire=wire)) as running:
        await ready(running.service)
        yield running


def check_unavailable(answer: httpx.Response) -> None:
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["type"] == "urn:lablink:database-unavailable"


async def test_without_its_database_the_service_says_when_to_try_again(wired: RunningService, wire: Wire) -> None:
    async with wired.client() as client:
        with wire.down():
            check_unavailable(await client.post(LEASES, json=WANTED))
            check_unavailable(await client.get("/api/v1/vms"))
            check_unavailable(await client.get("/api/unassigned_vms_count"))
            check_unavailable(await client.get("/readyz"))
            assert (await client.get("/livez")).status_code == 200
            metrics = await client.get("/metrics")
            page = await client.get("/", headers={"Accept": "text/html"})

        assert "lablink_database_up 0.0" in metrics.text
        assert page.status_code == 503
        assert 'http-equiv="refresh"' in page.text and "Machines that are lent go on working" in page.text


async def becomes_ready(client: httpx.AsyncClient) -> None:
    """Return once the service says that it is ready: each of its connections notices an outage in its own time."""
    async with asyncio.timeout(LIMIT_SECONDS):
        answer = await client.get("/readyz")
        while answer.status_code != 200:
            await asyncio.sleep(0.02)
            answer = await client.get("/readyz")


async def test_it_recovers_without_a_restart(wired: RunningService, wire: Wire) -> None:
    async with wired.client() as client:
        with wire.down():
            check_unavailable(await client.get("/readyz"))

        answer = await client.post(LEASES, json=WANTED)

        assert answer.status_code == 201
        await becomes_ready(client)


async def test_a_service_that_starts_before_its_database_becomes_ready_with_it(
    database: Database, wire: Wire, tmp_path: Path
) -> None:
    wire.refuses = True
    async with running_service(settings_for(database, tmp_path, wire=wire)) as running, running.client() as client:
        check_unavailable(await client.get("/readyz"))
        wire.refuses = False
        await ready(running.service)

        assert (await client.get("/readyz")).status_code == 200


async def test_a_database_of_another_version_is_named_with_what_to_do(
    database: Database, service: RunningService, client: httpx.AsyncClient
) -> None:
    owner = await database.connect("lablink")
    refusing = "CREATE OR REPLACE FUNCTION check_program(p_version integer) RETURNS void LANGUAGE plpgsql"
    await owner.execute(f"{refusing} AS $$ BEGIN RAISE EXCEPTION 'too old' USING ERRCODE = 'LL011'; END $$")
    newer = await client.get("/readyz")

    await owner.execute("DROP FUNCTION check_program(integer) CASCADE")
    older = await client.get("/readyz")

    assert (newer.status_code, older.status_code) == (503, 503)
    assert newer.json()["title"] == "This allocator is too old for the database"
    assert "lablink db migrate" in older.json()["detail"]


async def test_a_database_that_does_not_answer_is_not_waited_for_long(
    wired: RunningService, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with wired.client() as client:
        await client.get("/api/v1/vms")
        monkeypatch.setattr("allocator.health.READY_SECONDS", 0.9)
        wire.stalls = True
        other = asyncio.create_task(client.get("/api/v1/vms"))

        check_unavailable(await client.get("/readyz"))
        assert not other.done()  # which is waited for longer
        assert (await client.get("/livez")).status_code == 200

        wire.stalls = False
        wire.cut()
        check_unavailable(await other)


async def test_an_answer_that_was_lost_is_had_again_with_the_same_key(wired: RunningService, wire: Wire) -> None:
    loss = wire.lose("answer", "request_vm")
    async with wired.client() as client:
        lost = await client.post(LEASES, json=WANTED, headers={"Idempotency-Key": "once"})
        again = await client.post(LEASES, json=WANTED, headers={"Idempotency-Key": "once"})

    assert loss.happened.is_set()
    check_unavailable(lost)
    assert again.status_code == 201
    assert again.json()["token"]


async def test_an_open_page_is_told_that_it_may_be_behind_and_then_catches_up(
    database: Database, wired: RunningService, wire: Wire
) -> None:
    async with wired.client() as client, streaming(client, "/stream") as stream:
        await stream.next("pool")
        with wire.down():
            assert "We cannot see the machines" in await stream.next("pool")
            await database.vm()

        assert "1 of 1 machines is free" in await stream.next("pool")


@pytest.mark.usefixtures("usual_wait_for_locks")
async def test_a_locked_table_is_busy_not_hung(database: Database, wired: RunningService) -> None:
    admin = await database.connect()
    transaction = admin.transaction()
    await transaction.start()
    await admin.execute("LOCK TABLE leases IN ACCESS EXCLUSIVE MODE")
    async with wired.client() as client, asyncio.timeout(LIMIT_SECONDS):
        answer = await client.post(LEASES, json=WANTED)
    await transaction.rollback()

    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:lablink:busy"


@pytest.mark.usefixtures("usual_wait_for_locks")
async def test_when_every_connection_is_taken_those_who_ask_are_told_so_and_do_not_wait_for_ever(
    database: Database, tmp_path: Path
) -> None:
    settings = settings_for(database, tmp_path, "database.connections=2", "sweeps.period_seconds=60")
    admin = await database.connect()
    async with running_service(settings) as running, running.client() as client:
        await ready(running.service)
        async with admin.transaction(), asyncio.timeout(LIMIT_SECONDS):
            await admin.execute("LOCK TABLE pools IN ACCESS EXCLUSIVE MODE")
            answers = await asyncio.gather(*(client.post(LEASES, json=WANTED) for _ in range(6)))

    assert {answer.status_code for answer in answers} == {503}
    assert all(answer.json()["type"] == "urn:lablink:busy" for answer in answers)


async def test_a_database_that_was_not_migrated_says_so(database: Database, wired: RunningService) -> None:
    owner = await database.connect()
    await owner.execute("ALTER FUNCTION unassigned_vms_count RENAME TO elsewhere")

    async with wired.client() as client:
        answer = await client.get("/api/unassigned_vms_count")

    assert answer.status_code == 503
    assert "lablink db migrate" in answer.json()["detail"]


@pytest.mark.parametrize("role", ["lablink_app"])
async def test_killed_connections_are_replaced(database: Database, wired: RunningService, role: str) -> None:
    superuser = await database.connect("postgres")
    async with wired.client() as client:
        await client.get("/api/v1/vms")
        assert await superuser.fetch(ENDED, role)
        answers = [await client.get("/api/v1/vms") for _ in range(3)]

    assert answers[-1].status_code == 200

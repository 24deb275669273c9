"""Of several allocators one does what is due, and another when that one is dead."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.sql.steps import lent
from tests.support import LIMIT_SECONDS
from tests.support.allocator import Allocator
from tests.support.database import Database
from tests.support.fleet import admin, fleet_without_cloud
from tests.support.machine import Pool
from tests.support.service import NO_TLS, streaming
from tests.support.up import LOOK_EVERY

OPERATIONS = "/api/v1/operations"
SHRINK = {"kind": "shrink", "number": 1, "drain": True}
PEOPLE = 20


@pytest_asyncio.fixture
async def allocators(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[Allocator]]:
    """Three that make backups, and have a fleet and no credentials for AWS."""
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    settings = ("backup=local", f"backup.to={tmp_path}/backups", *fleet_without_cloud(tmp_path))
    three = [Allocator.somewhere() for _ in range(3)]
    async with AsyncExitStack() as opened:
        await asyncio.gather(*(opened.enter_async_context(each.serving(database, *settings)) for each in three))
        yield three
        for each in three:  # all together
            each.tell_to_stop()


@pytest_asyncio.fixture
async def pool(database: Database) -> Pool:
    return await Pool.of(database)


def asked(allocator: Allocator, headers: dict[str, str]) -> httpx.AsyncClient:
    """A client of that allocator."""
    return httpx.AsyncClient(base_url=allocator.url, headers=headers, timeout=LIMIT_SECONDS, verify=NO_TLS)


async def let_them_expire(database: Database, pool: Pool) -> None:
    """People wait longer than one may."""
    for lease in [await pool.request_job(["sh"]) for _ in range(PEOPLE)]:
        await database.age(lease, 7200)


async def swept(allocators: list[Allocator]) -> float:
    """How many rows these changed because a deadline had passed."""
    return sum([await each.figure('lablink_swept_rows_total{duty="deadlines"}') for each in allocators])


async def begun(admin: httpx.AsyncClient) -> str:
    """Where a shrink is, which begins once nothing else is on its way to its end."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while (answer := await admin.post(OPERATIONS, json=SHRINK)).status_code == 409:
            pass
    return answer.headers["Location"]


async def test_what_is_due_is_swept_once_and_by_whoever_is_left(
    database: Database, allocators: list[Allocator], pool: Pool
) -> None:
    await let_them_expire(database, pool)
    await pool.until("SELECT count(*) = $1 FROM leases WHERE status = 'failed'", PEOPLE)
    for each in allocators:  # each has looked again since
        before = await each.figure('lablink_sweeps_total{duty="deadlines"}')
        async with asyncio.timeout(LIMIT_SECONDS):
            while await each.figure('lablink_sweeps_total{duty="deadlines"}') < before + 2:  # noqa: ASYNC110
                await asyncio.sleep(LOOK_EVERY)
    assert await swept(allocators) == PEOPLE
    assert await pool.owner.fetchval("SELECT count(*) FROM events WHERE kind = 'lease.failed'") == PEOPLE

    for each in allocators[:2]:
        await each.kill()
    await let_them_expire(database, pool)

    await pool.until("SELECT count(*) = $1 FROM leases WHERE status = 'failed'", 2 * PEOPLE)


async def test_a_scheduled_backup_is_made_once(allocators: list[Allocator], pool: Pool) -> None:
    await pool.until("SELECT bool_or(status = 'done') FROM operations WHERE kind = 'backup'")
    made = "SELECT array_agg(status) FROM operations WHERE kind = 'backup'"

    assert await pool.owner.fetchval(made) == ["done"]


async def test_an_operation_whose_allocator_was_killed_is_closed_and_begun_again_at_another(
    database: Database, allocators: list[Allocator], pool: Pool
) -> None:
    await pool.until("SELECT bool_or(status = 'done') FROM operations WHERE kind = 'backup'")
    await lent(database, await database.connect("lablink_app"))
    await pool.owner.execute("INSERT INTO fleet_vms (hostname) VALUES ('vm-1')")
    ada = await admin(pool.owner)
    async with AsyncExitStack() as opened:
        one, two, three = [await opened.enter_async_context(asked(allocator, ada)) for allocator in allocators]
        first = await begun(one)
        await pool.until("SELECT bool_or(status = 'waiting') FROM operations")

        await allocators[0].kill()
        while (closed := (await two.delete(first)).json())["status"] == "waiting":
            pass  # the database has not noticed
        again = await begun(three)
        await pool.owner.execute("SELECT end_lease(id) FROM leases")
        async with streaming(two, f"{again}/events") as events:
            over = json.loads(await events.next("end"))

    assert (closed["status"], closed["error"]) == ("failed", "interrupted")
    assert over["error"].startswith("AWS refuses")  # which is asked next, and not there
    assert await pool.owner.fetchval("SELECT wanted FROM fleet_vms") is False

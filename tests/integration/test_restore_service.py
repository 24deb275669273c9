"""A restore beside a running service, and one on another server: who goes on, and who has to be invited again."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from allocator import bootstrap, migrate
from allocator.upkeep.backup import back_up
from allocator.upkeep.pause import paused
from allocator.upkeep.storage import Directory
from tests.sql.steps import ADA
from tests.support import LIMIT_SECONDS
from tests.support.database import PASSWORDS, Database
from tests.support.server import fresh_server
from tests.support.service import PlayedClient, RunningService, ready
from tests.support.upkeep import ignore, restored_from, some_life, without_kept_databases


@pytest_asyncio.fixture
async def storage(database: Database, tmp_path: Path) -> AsyncIterator[Directory]:
    """An empty place for backups; databases that a restore kept are dropped."""
    async with without_kept_databases(database):
        yield Directory(tmp_path / "backups")


@pytest.mark.usefixtures("usual_wait_for_locks")
async def test_while_paused_a_request_is_answered_503_and_afterwards_201(
    database: Database, service: RunningService, client: httpx.AsyncClient
) -> None:
    request = {"email": ADA, "crd_command": "echo hello"}
    async with paused(database.dsn("lablink")):
        refused = await client.post("/api/v1/leases", json=request)
        shown = await client.get("/")

    assert (refused.status_code, shown.status_code) == (503, 200)
    assert int(refused.headers["Retry-After"]) > 0
    assert (await client.post("/api/v1/leases", json=request)).status_code == 201


async def test_a_running_service_goes_on_with_the_restored_database(
    database: Database, storage: Directory, service: RunningService, client: httpx.AsyncClient
) -> None:
    vm = await database.vm("vm-1")
    request = {"email": ADA, "crd_command": "echo hello"}
    held = (await client.post("/api/v1/leases", json=request)).json()
    await back_up(database.dsn("lablink"), storage, ignore)
    await restored_from(database, storage)

    async with asyncio.timeout(LIMIT_SECONDS):
        await ready(service.service)
        while (answer := await client.get(f"/api/v1/leases/{held['id']}", headers=_token(held))).status_code != 200:
            assert answer.status_code == 503
    played = await PlayedClient.of(vm)
    await played.clean()

    assert answer.json()["failure"] == "database-restored"
    async with asyncio.timeout(LIMIT_SECONDS):  # each connection notices in its own time
        while (lent := await client.post("/api/v1/leases", json=request)).status_code != 201:
            assert lent.status_code == 503
    again = lent.json()
    assert (again["status"], again["hostname"]) == ("assigned", "vm-1")


def _token(lease: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {lease['token']}"}


async def test_on_a_server_that_never_had_the_machines_they_are_named(
    database: Database, storage: Directory, tmp_path: Path
) -> None:
    await some_life(database)
    await database.vm("vm-2")
    await back_up(database.dsn("lablink"), storage, ignore)
    async with fresh_server(tmp_path, database.server.version) as server:
        await bootstrap.prepare(server.dsn(), PASSWORDS)
        dsn = server.dsn(bootstrap.OWNER, PASSWORDS[bootstrap.OWNER], bootstrap.DATABASE)
        await migrate.upgrade(dsn)

        restored = await restored_from(database, storage, force=False, dsn=dsn)

        owner = await database.keep(dsn)
        assert (restored.vms_to_invite, restored.leases_failed) == (["vm-1", "vm-2"], 2)
        assert {row["status"] for row in await owner.fetch("SELECT status FROM vms")} == {"failed"}
        assert await owner.fetch("SELECT * FROM broken_invariants()") == []
        await owner.close()

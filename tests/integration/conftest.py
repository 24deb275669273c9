"""The service, running on a test's own database, and a machine of it.

Or a service for all tests of a module, where each leaves nothing.
"""

import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser

from allocator import connection
from client.x11 import SOCKETS
from tests.support.browser import chromium
from tests.support.database import WORKER, Database, cloned_database
from tests.support.fleet import admin
from tests.support.front import Front, front_of
from tests.support.hub import hub_machine
from tests.support.machine import Machine, Pool
from tests.support.patience import patient_role
from tests.support.server import TestServer
from tests.support.service import RunningService, ready, running_service, settings_for
from tests.support.wire import Wire, wire_to


@pytest_asyncio.fixture
async def service(database: Database, tmp_path: Path) -> AsyncIterator[RunningService]:
    """A service that is ready."""
    async with running_service(settings_for(database, tmp_path)) as running:
        await ready(running.service)
        yield running


@pytest.fixture
def usual_wait_for_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that is opened after this waits for a lock no longer than usual, for all else as in any test."""
    monkeypatch.setitem(connection.LIMITS, "lock_timeout", "2s")


@pytest_asyncio.fixture
async def no_time_passes(database: Database) -> None:
    """However long a browser takes, machines that are played are not lost, and leases end as late as is said."""
    await database.stop_clock()


@pytest_asyncio.fixture
async def client(service: RunningService) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of that service."""
    async with service.client() as own:
        yield own


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api_service(
    server: TestServer, template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningService]:
    """A service that is ready, and knows an admin, for tests with `pytest.mark.asyncio(loop_scope="module")`."""
    directory = tmp_path_factory.mktemp("service")
    async with (
        cloned_database(server, template, f"lablink_shared_{WORKER}") as database,
        running_service(settings_for(database, directory)) as running,
    ):
        await patient_role(database)
        await ready(running.service)
        await admin(await database.connect("lablink"))
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def api(api_service: RunningService) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of the shared service, with cookies of its own."""
    async with api_service.client() as own:
        yield own


@pytest_asyncio.fixture
async def owner(database: Database) -> asyncpg.Connection:
    """An admin, who looks and changes things by hand."""
    return await database.connect("lablink")


@pytest_asyncio.fixture
async def pool(database: Database) -> Pool:
    """The default pool, which runs `sh`; where a service sets that pool up as well, have it do so first."""
    return await Pool.of(database)


@pytest_asyncio.fixture
async def machine(database: Database, tmp_path: Path) -> AsyncIterator[Machine]:
    """A machine that is available, and known to the hub."""
    machine = await hub_machine(database, tmp_path / "vm")
    yield machine
    await machine.stop()


@pytest_asyncio.fixture
async def front(service: RunningService) -> AsyncIterator[Front]:
    """A way to that service which can be cut, stalled, and led elsewhere."""
    async with front_of(service.url) as front:
        yield front


@pytest_asyncio.fixture
async def wire(database: Database) -> AsyncIterator[Wire]:
    """A way to the database's server that can be cut or lose what is sent."""
    async with wire_to(database.server) as wire:
        yield wire


@pytest_asyncio.fixture
async def browser() -> AsyncIterator[Browser]:
    """A browser of this test's own."""
    async with chromium() as browser:
        yield browser


@pytest.fixture
def display() -> Iterator[int]:
    """A display that nobody has."""
    number = random.randrange(1000, 50_000)
    yield number
    Path(f"{SOCKETS}/X{number}").unlink(missing_ok=True)

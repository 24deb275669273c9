"""A fleet that serves is moved from one transport to the other, and nobody loses a lease."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from client.direct import DirectTransport
from client.hub import HubTransport
from client.protocol import TransportName
from client.settings import load_credential
from client.switch import Switch, Way
from tests.support.database import Database
from tests.support.front import Front, front_of
from tests.support.hub import hub_machine
from tests.support.machine import Machine, Pool, reached
from tests.support.service import RunningService

SESSIONS = "SELECT (SELECT count(*) FROM pg_stat_activity WHERE usename = $1) = $2"


@pytest_asyncio.fixture
async def pool(database: Database, service: RunningService) -> Pool:
    pool = await Pool.of(database)
    await pool.owner.execute(
        "CREATE OR REPLACE FUNCTION hello_period() RETURNS double precision LANGUAGE sql STABLE RETURN 0.2"
    )
    return pool


@pytest_asyncio.fixture
async def front(service: RunningService) -> AsyncIterator[Front]:
    async with front_of(service.url) as front:
        yield front


@asynccontextmanager
async def serving(machine: Machine, url: str, wish: TransportName = "direct") -> AsyncIterator[None]:
    """The machine's client, with both ways open to it."""
    wake, passwords = asyncio.Event(), machine.passwords()
    ways: dict[str, Callable[[], Way]] = {
        "direct": lambda: DirectTransport(machine.address, passwords, wake, wish_seconds=0.0),
        "hub": lambda: HubTransport(url, passwords, wake),
    }
    switch = Switch(wish, ways, wake, passwords.keep_transport, try_seconds=0.2, away_seconds=0.2)
    async with machine.serving_over(switch):
        yield


async def wish(pool: Pool, transport: str) -> None:
    await pool.owner.execute("UPDATE pools SET transport = $1", transport)


async def test_a_machine_is_moved_there_and_back_while_its_lease_goes_on(
    database: Database, service: RunningService, pool: Pool, tmp_path: Path
) -> None:
    machine = Machine.of(await database.vm(), tmp_path / "vm")
    async with serving(machine, service.url):
        lease = await pool.request_job(machine.job("sleep 60"))
        await pool.settled(lease)

        await wish(pool, "hub")
        await reached(lambda: service.service.hub.machines == 1)
        await pool.until(SESSIONS, machine.vm.role, 0)
        await reached(lambda: load_credential(machine.state.credential).transport == "hub")

        await wish(pool, "direct")
        await pool.until(SESSIONS, machine.vm.role, 1)
        await reached(lambda: service.service.hub.machines == 0)

        assert (await pool.lease(lease))["status"] == "active"
        await pool.end(lease)
        await pool.available(machine)
    assert machine.count_starts() == 1
    assert await pool.owner.fetch("SELECT * FROM broken_invariants()") == []


async def test_a_machine_stays_with_what_works_until_the_hub_answers(
    database: Database, service: RunningService, pool: Pool, front: Front, tmp_path: Path
) -> None:
    machine, port = Machine.of(await database.vm(), tmp_path / "vm"), front.leads_to
    front.leads_to = 1
    async with serving(machine, front.url):
        await wish(pool, "hub")
        await reached(lambda: front.accepted > 1)
        assert (await pool.settled(await pool.request_job(machine.job())))["status"] == "active"
        front.leads_to = port
        await reached(lambda: service.service.hub.machines == 1)


@pytest.mark.parametrize("first", ["hub", "direct"])
async def test_with_auto_a_machine_takes_the_hub_and_postgresql_while_that_is_away(
    database: Database, service: RunningService, pool: Pool, front: Front, tmp_path: Path, first: TransportName
) -> None:
    await wish(pool, "auto")
    machine, port = await hub_machine(database, tmp_path / "vm"), front.leads_to
    async with serving(machine, front.url, first):
        await reached(lambda: service.service.hub.machines == 1)
        front.leads_to = 1
        front.cut()
        await pool.until(SESSIONS, machine.vm.role, 1)
        assert (await pool.settled(await pool.request_job(machine.job())))["status"] == "active"
        front.leads_to = port
        await reached(lambda: service.service.hub.machines == 1)
        await pool.until(SESSIONS, machine.vm.role, 0)

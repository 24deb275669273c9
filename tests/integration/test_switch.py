"""A fleet that serves is moved from one transport to the other, and nobody loses a lease."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from client import link
from client.direct import DirectTransport
from client.hub import HubTransport
from client.protocol import TransportName
from client.settings import load_credential
from client.switch import MOVED_SECONDS, Switch, Way
from tests.support import LIMIT_SECONDS
from tests.support.database import Database
from tests.support.front import Front
from tests.support.hub import NOTHING, hub_machine
from tests.support.machine import Machine, Pool, reached
from tests.support.service import RunningService
from tests.support.wire import wire_to

WITHOUT_WEBSOCKETS = "import sys; sys.modules['websockets'] = None; from client.cli import main; main()"
SESSIONS = "SELECT (SELECT count(*) FROM pg_stat_activity WHERE usename = $1) = $2"


@pytest_asyncio.fixture
async def pool(database: Database, service: RunningService) -> Pool:
    pool = await Pool.of(database)
    await pool.hello_every(0.2)
    return pool


@asynccontextmanager
async def serving(
    machine: Machine, url: str, wish: TransportName = "direct", moved_seconds: float = MOVED_SECONDS
) -> AsyncIterator[None]:
    """The machine's client, with both ways open to it."""
    wake, passwords = asyncio.Event(), machine.passwords()
    ways: dict[str, Callable[[], Way]] = {
        "direct": lambda: DirectTransport(machine.address, passwords, wake, wish_seconds=0.0),
        "hub": lambda: HubTransport(url, passwords, wake),
    }
    few = {"try_seconds": 0.2, "away_seconds": 0.2}
    switch = Switch(wish, ways, wake, passwords.keep_transport, **few, moved_seconds=moved_seconds)
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


async def test_a_machine_hears_of_its_lease_while_a_hub_that_never_answers_is_tried(
    database: Database,
    pool: Pool,
    front: Front,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link, "CONNECT_LIMIT_SECONDS", LIMIT_SECONDS)
    machine, front.stalls = Machine.of(await database.vm(), tmp_path / "vm"), True
    await wish(pool, "hub")
    async with serving(machine, front.url):
        await reached(lambda: front.accepted == 1)
        assert (await pool.settled(await pool.request_job(machine.job())))["status"] == "active"
        assert "transport stays" not in caplog.messages


async def test_a_trial_that_fails_leaves_the_present_way_as_it_is(
    database: Database, pool: Pool, front: Front, tmp_path: Path
) -> None:
    machine, front.stalls, wake = Machine.of(await database.vm(), tmp_path / "vm"), True, asyncio.Event()
    await wish(pool, "hub")
    ways: dict[str, Callable[[], Way]] = {
        "direct": lambda: DirectTransport(machine.address, None, wake, check_seconds=0.0, check_limit=LIMIT_SECONDS),
        "hub": lambda: HubTransport(front.url, machine.passwords(), wake),
    }
    async with Switch("direct", ways, wake, try_seconds=0.0) as switch:
        await switch.hello(NOTHING)
        for _ in range(3):
            wake.clear()
            await switch.hello(NOTHING)
            cut = asyncio.create_task(cut_while_asked(front, pool, machine))
            await switch.idle(60)
            await switch.hello(NOTHING)
            await cut


async def cut_while_asked(front: Front, pool: Pool, machine: Machine) -> None:
    """Let go of whoever tries the hub, once the machine's connection to PostgreSQL is being looked after."""
    await reached(lambda: bool(front.held))
    asked = "SELECT query LIKE '%listening%' FROM pg_stat_activity WHERE usename = $1"
    await pool.until(asked, machine.vm.role)
    front.cut()


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


async def test_a_machine_that_was_off_while_its_fleet_was_moved_finds_the_hub_when_its_port_is_closed(
    database: Database, service: RunningService, pool: Pool, tmp_path: Path
) -> None:
    vm = await database.vm()
    before = Machine.of(vm, tmp_path / "before")
    async with serving(before, service.url):
        await pool.until("SELECT hub_sha256 IS NOT NULL FROM vm_roles")
    await wish(pool, "hub")

    async with wire_to(database.server) as closed:
        machine = Machine.of(vm, tmp_path / "vm", closed.port)
    async with serving(machine, service.url, moved_seconds=0.2):
        await reached(lambda: service.service.hub.machines == 1)
        await reached(lambda: load_credential(machine.state.credential).transport == "hub")


async def test_a_machine_that_the_hub_does_not_know_waits_for_postgresql(
    database: Database, service: RunningService, pool: Pool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vm = await database.vm()
    async with wire_to(database.server) as closed:
        machine = Machine.of(vm, tmp_path / "vm", closed.port)
    async with serving(machine, service.url, moved_seconds=0.2):
        await reached(lambda: "transport stays" in caplog.messages)
    assert machine.state.credential.exists()


def client_without_websockets(machine: Machine, transport: str) -> subprocess.Popen[str]:
    """The machine's client as a process, where what the hub needs is not installed; it is to speak so."""
    machine.passwords().keep_transport(transport)
    command = [sys.executable, "-c", WITHOUT_WEBSOCKETS, "run", f"--state-dir={machine.state.root}"]
    environment = os.environ | {"LABLINK_ALLOCATOR_URL": "https://lablink.example.org"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


async def test_a_machine_that_cannot_take_the_hub_says_what_to_install(database: Database, tmp_path: Path) -> None:
    client = client_without_websockets(Machine.of(await database.vm(), tmp_path / "vm"), "hub")
    said = await asyncio.to_thread(client.communicate)
    assert (client.returncode, "-m pip install 'lablink[hub]'" in said[1]) == (1, True)


async def test_with_auto_a_machine_that_cannot_take_the_hub_serves_without_it(
    database: Database, pool: Pool, tmp_path: Path
) -> None:
    machine = Machine.of(await database.vm(), tmp_path / "vm")
    await wish(pool, "auto")
    client = client_without_websockets(machine, "auto")
    try:
        assert (await pool.settled(await pool.request_job(machine.job())))["status"] == "active"
    finally:
        client.terminate()
        said = await asyncio.to_thread(client.communicate)
    assert "transport stays" in said[1]
    assert "-m pip install 'lablink[hub]'" in said[1]

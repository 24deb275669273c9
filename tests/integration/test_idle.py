"""A machine that its person does not use, and one that is not well: real clients, which say so either way.

A pool lets a machine be unused for longer than anything here stands still, but where a test is about that.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.database import Database
from tests.support.hub import hub_machine
from tests.support.machine import Machine, Pool, reached
from tests.support.service import RunningService, ready, running_service, settings_for

NewMachine = Callable[[str], Awaitable[Machine]]
REASON = "SELECT reason LIKE 'unhealthy: check %' FROM vms WHERE id = $1"
THREE_SECONDS = "UPDATE pools SET idle_seconds = 3"
WARNINGS = """
    SELECT count(*) FILTER (WHERE kind = 'lease.idle') - count(*) FILTER (WHERE kind = 'lease.used')
    FROM events WHERE lease_id = $1
"""
"""How many of them were not taken back, as they are when a machine is silent for some seconds."""


@pytest.fixture(params=["direct", "hub"])
def transport(request: pytest.FixtureRequest) -> str:
    """How machines speak."""
    return str(request.param)


@pytest_asyncio.fixture
async def service(database: Database, tmp_path: Path, transport: str) -> AsyncIterator[RunningService]:
    idle = ("pool.idle_seconds=120", "pool.idle_warn_seconds=1", "pool.restart_on_move=true")
    async with running_service(settings_for(database, tmp_path, f"transport={transport}", *idle)) as running:
        await ready(running.service)
        yield running


@pytest_asyncio.fixture
async def pool(database: Database, service: RunningService) -> Pool:
    pool = await Pool.of(database)
    await pool.hello_every(0.2)
    return pool


@pytest_asyncio.fixture
async def new_machine(
    database: Database, service: RunningService, transport: str, tmp_path: Path
) -> AsyncIterator[NewMachine]:
    """Makes a machine that is available, whose checks pass."""
    made: list[Machine] = []

    async def new(hostname: str) -> Machine:
        machine = await hub_machine(database, tmp_path / hostname, hostname)
        settings = json.loads(machine.state.settings.read_text())
        machine.state.settings.write_text(json.dumps(settings | {"checks": str(_check(machine).parent)}))
        if transport == "hub":
            machine.speaks_over_the_hub(service.url)
        made.append(machine)
        return machine

    yield new
    for machine in made:
        await machine.stop()


@pytest_asyncio.fixture
async def machine(pool: Pool, new_machine: NewMachine) -> Machine:
    machine = await new_machine("vm-1")
    await machine.start()
    await pool.available(machine)
    return machine


def _check(machine: Machine) -> Path:
    """A check that fails while there is a file `ill`, which goes when that says `once`; it notes each of its rounds."""
    root = machine.state.root
    check = root / "checks.d" / "mount"
    check.parent.mkdir()
    check.write_text(f"#!/bin/sh\necho x >> {root}/rounds\n[ -e {root}/ill ] || exit 0\n"
                     f"grep -q once {root}/ill && rm {root}/ill\necho /data is gone; exit 1\n")  # fmt: skip
    check.chmod(0o755)
    return check


def falls_ill(machine: Machine, how: str = "") -> None:
    """All of `how` is in the file from when there is one."""
    (machine.state.root / "ill-soon").write_text(how)
    (machine.state.root / "ill-soon").rename(machine.state.root / "ill")


def rounds(machine: Machine) -> int:
    noted = machine.state.root / "rounds"
    return len(noted.read_text().split()) if noted.exists() else 0


async def test_a_command_that_sleeps_is_warned_of_and_ended_and_the_machine_is_there_for_the_next(
    pool: Pool, machine: Machine
) -> None:
    await pool.owner.execute(THREE_SECONDS)
    lease = await pool.request_job(machine.job("sleep 600"))
    await pool.until("SELECT NOT live FROM leases WHERE id = $1", lease)
    ended = await pool.lease(lease)
    assert (ended["status"], ended["left_idle"]) == ("ended", True)
    assert await pool.owner.fetchval(WARNINGS, lease) == 1
    await pool.available(machine)


async def test_a_command_that_works_uses_the_machine(pool: Pool, machine: Machine) -> None:
    lease = await pool.request_job(machine.job("while :; do true; done"))
    await pool.settled(lease)
    since = await pool.owner.fetchval("SELECT clock()")
    await pool.until(
        "SELECT used_at > $1::timestamptz + interval '4 s' FROM vm_heartbeats WHERE vm_id = $2", since, machine.vm.id
    )
    assert (await pool.lease(lease))["status"] == "active"


async def test_a_desktop_of_which_nothing_is_known_is_not_idle(pool: Pool, machine: Machine) -> None:
    await pool.owner.execute(THREE_SECONDS)
    lease = await pool.request_desktop()
    await pool.settled(lease)
    since = await pool.owner.fetchval("SELECT clock()")
    await pool.until(
        "SELECT seen_at > $1::timestamptz + interval '4 s' FROM vm_heartbeats WHERE vm_id = $2", since, machine.vm.id
    )
    assert (await pool.lease(lease))["status"] == "active"


async def test_whoever_is_on_a_machine_that_is_not_well_moves_and_it_comes_back_once_it_is(
    pool: Pool, machine: Machine, new_machine: NewMachine
) -> None:
    lease = await pool.request_job(machine.job("sleep 600"))
    await pool.settled(lease)
    spare = await new_machine("vm-2")
    await spare.start()
    falls_ill(machine)
    await pool.until("SELECT hostname = 'vm-2' AND status = 'active' FROM leases WHERE id = $1", lease)
    assert (
        await pool.owner.fetchval("SELECT reason FROM vms WHERE hostname = 'vm-1'")
        == "unhealthy: check mount: /data is gone"
    )

    (machine.state.root / "ill").unlink()
    await pool.available(machine)


async def test_a_machine_that_is_kept_for_its_person_is_looked_at_too(pool: Pool, machine: Machine) -> None:
    machine.start_host('echo "OAuth error."; exit 1')
    lease = await pool.settled(await pool.request_desktop())
    assert lease["needs_line"]
    falls_ill(machine)
    await pool.until(REASON, machine.vm.id)


async def test_one_hiccup_takes_nobodys_machine(pool: Pool, machine: Machine) -> None:
    falls_ill(machine, "once")
    await reached(lambda: not (machine.state.root / "ill").exists())
    seen = rounds(machine)
    await reached(lambda: rounds(machine) > seen + 2)
    assert await pool.owner.fetchval("SELECT count(*) FROM events WHERE kind = 'vm.failed'") == 0


async def test_a_machine_that_is_not_well_is_not_lent_again(pool: Pool, machine: Machine) -> None:
    lease = await pool.request_job(machine.job("sleep 600"))
    await pool.settled(lease)
    async with pool.owner.transaction():  # at one moment for everybody else
        await pool.end(lease)
        falls_ill(machine)
    await pool.until(REASON, machine.vm.id)
    after = "SELECT kind FROM events WHERE vm_id = $1 AND kind LIKE 'vm.%' ORDER BY id DESC LIMIT 2"
    assert [row["kind"] for row in await pool.owner.fetch(after, machine.vm.id)] == ["vm.failed", "vm.cleaning"]


async def test_a_machine_that_an_admin_has_is_looked_at_and_stays_theirs(pool: Pool, machine: Machine) -> None:
    await pool.owner.execute("UPDATE vms SET status = 'in-use'")
    falls_ill(machine)
    before = rounds(machine)
    await reached(lambda: rounds(machine) > before + 1)
    since = await pool.owner.fetchval("SELECT clock()")
    await pool.until("SELECT seen_at > $1::timestamptz + interval '1 s' FROM vm_heartbeats", since)
    assert await pool.owner.fetchval("SELECT status FROM vms") == "in-use"
    await pool.owner.execute("UPDATE vms SET status = 'available', email = NULL")
    await pool.until(REASON, machine.vm.id)


async def two_are_ill(pool: Pool, new_machine: NewMachine) -> Machine:
    """Two of three machines failed, each with a desktop on it. Returns the third, which is available."""
    two = [await new_machine(hostname) for hostname in ("vm-1", "vm-2")]
    for machine in two:
        await machine.start()
        await pool.available(machine)
        await pool.settled(await pool.request_desktop())
    for machine in two:
        falls_ill(machine)
    third = await new_machine("vm-3")
    await pool.until("SELECT count(*) = 2 FROM vms WHERE reason LIKE 'unhealthy: check %'")
    await pool.owner.execute("UPDATE leases SET status = 'cancelled' WHERE live")
    await third.start()
    await pool.available(third)
    return third


NOTED = "SELECT count(*) = $2 FROM events WHERE hostname = 'vm-3' AND kind = $1"


@pytest.mark.slow
async def test_where_too_many_are_not_well_whoever_has_one_keeps_it_until_it_is_one_of_few(
    pool: Pool, new_machine: NewMachine
) -> None:
    third = await two_are_ill(pool, new_machine)
    lease = await pool.request_desktop()
    await pool.settled(lease)
    falls_ill(third)
    await pool.until(NOTED, "vm.unwell", 1)
    (third.state.root / "ill").unlink()
    await pool.until(NOTED, "vm.well", 1)
    falls_ill(third)
    await pool.until(NOTED, "vm.unwell", 2)
    assert (await pool.lease(lease))["status"] == "active"

    await pool.owner.execute("SELECT retire_vm('vm-1')")
    await pool.until(REASON, third.vm.id)
    failed = await pool.owner.fetchval("SELECT detail FROM events WHERE hostname = 'vm-3' AND kind = 'vm.failed'")
    assert json.loads(failed)["from"] == "in-use"


async def test_what_ends_on_a_machine_that_stays_though_it_is_not_well_is_told(
    pool: Pool, new_machine: NewMachine, tmp_path: Path
) -> None:
    third = await two_are_ill(pool, new_machine)
    lease = await pool.request_job(third.job(f"while [ ! -e {tmp_path}/end ]; do sleep 0.02; done"))
    await pool.settled(lease)
    falls_ill(third)
    await pool.until(NOTED, "vm.unwell", 1)
    (tmp_path / "end").touch()
    assert (await pool.finished(lease))["exit_code"] == 0

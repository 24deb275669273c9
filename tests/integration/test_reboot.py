"""A machine reboots under somebody: it is still theirs when it is back, and what ran on it goes on as far as it can."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from client.processes import MARK
from tests.support.database import Database
from tests.support.hub import hub_machine
from tests.support.machine import Machine, Pool, reached
from tests.support.service import RunningService, ready, running_service, settings_for

NewMachine = Callable[[str], Awaitable[Machine]]


@pytest.fixture(params=["direct", "hub"])
def transport(request: pytest.FixtureRequest) -> str:
    """How machines speak."""
    return str(request.param)


@pytest_asyncio.fixture
async def service(database: Database, tmp_path: Path, transport: str) -> AsyncIterator[RunningService]:
    settings = settings_for(database, tmp_path, f"transport={transport}", "pool.restart_on_move=true")
    async with running_service(settings) as running:
        await ready(running.service)
        yield running


@pytest_asyncio.fixture
async def pool(database: Database, service: RunningService) -> Pool:
    return await Pool.of(database)


@pytest_asyncio.fixture
async def new_machine(
    database: Database, service: RunningService, transport: str, tmp_path: Path
) -> AsyncIterator[NewMachine]:
    """Makes a machine that is available, whose clients speak as they are to."""
    made: list[Machine] = []

    async def new(hostname: str) -> Machine:
        made.append(await hub_machine(database, tmp_path / hostname, hostname))
        if transport == "hub":
            made[-1].speaks_over_the_hub(service.url)
        return made[-1]

    yield new
    for machine in made:
        await machine.stop()


@pytest_asyncio.fixture
async def machine(new_machine: NewMachine) -> Machine:
    return await new_machine("vm-1")


@asynccontextmanager
async def a_service_in_the_session(machine: Machine) -> AsyncIterator[None]:
    """What the system starts for a desktop at each boot, as Google's package has it do."""
    environment = {**os.environ, MARK: str(machine.state.session)}
    process = await asyncio.create_subprocess_exec("sleep", "600", env=environment)
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def reboots(machine: Machine) -> None:
    await machine.loses_power()
    await machine.start()


async def told_again(pool: Pool, lease: "asyncpg.Record") -> "asyncpg.Record":
    """The lease, once its machine has reported something of it since."""
    await pool.until("SELECT version > $2 FROM leases WHERE id = $1", lease["id"], lease["version"])
    return await pool.lease(lease["id"])


async def with_a_desktop(pool: Pool, machine: Machine) -> "asyncpg.Record":
    lease = await pool.request_desktop()
    await machine.start()
    ready = await pool.finished(lease)
    assert ready["status"] == "active"
    return ready


async def is_well(pool: Pool) -> bool:
    return await pool.owner.fetch("SELECT * FROM broken_invariants()") == []


async def test_a_job_begins_again_on_its_machine_though_another_one_is_free(
    pool: Pool, machine: Machine, new_machine: NewMachine
) -> None:
    lease = await pool.request_job(machine.job("sleep 60"))
    spare = await new_machine("vm-2")
    for each in (machine, spare):
        await each.start()
    await reached(lambda: machine.count_starts() == 1)
    await pool.settled(lease)

    await reboots(machine)

    await reached(lambda: machine.count_starts() == 2)
    again = await pool.settled(lease)
    assert (again["status"], again["hostname"], again["epoch"], again["moves"]) == ("active", "vm-1", 2, 1)
    assert await is_well(pool)


async def test_a_job_that_had_ended_is_left_as_it_is(pool: Pool, machine: Machine) -> None:
    lease = await pool.request_job(machine.job("exit 3"))
    await machine.start()
    ended = await pool.finished(lease)

    await reboots(machine)

    after = await told_again(pool, ended)
    assert (after["status"], after["exit_code"], after["epoch"], machine.count_starts()) == ("active", 3, 1, 1)


async def test_a_command_that_was_fetched_and_not_begun_begins(pool: Pool, machine: Machine) -> None:
    lease = await pool.request_job(machine.job())
    await (await machine.start(die_at="claimed")).ended()

    await reboots(machine)

    assert ((await pool.finished(lease))["status"], machine.count_starts()) == ("active", 1)


async def test_a_desktop_that_comes_back_by_itself_is_kept(pool: Pool, machine: Machine) -> None:
    lease = await with_a_desktop(pool, machine)

    await machine.loses_power()
    async with a_service_in_the_session(machine):
        await machine.start()
        after = await told_again(pool, lease)

    assert (after["status"], after["epoch"], after["needs_line"]) == ("active", 1, False)
    assert machine.count_starts() == 1


async def test_the_holder_of_a_desktop_that_does_not_come_back_is_asked_for_a_line_on_the_same_machine(
    pool: Pool, machine: Machine, new_machine: NewMachine
) -> None:
    lease: UUID = (await with_a_desktop(pool, machine))["id"]
    await new_machine("vm-2")

    await reboots(machine)

    await pool.until("SELECT needs_line FROM leases WHERE id = $1", lease)
    asked = await pool.lease(lease)
    assert (asked["status"], asked["hostname"], asked["trouble"]) == ("assigned", "vm-1", "unknown")
    await pool.renew_line(lease)
    again = await pool.finished(lease)
    assert (again["status"], again["hostname"], again["epoch"]) == ("active", "vm-1", 2)
    assert machine.count_starts() == 2
    assert await is_well(pool)


async def test_a_desktop_with_a_fresh_line_outlives_a_restart_of_the_client(pool: Pool, machine: Machine) -> None:
    lease: UUID = (await with_a_desktop(pool, machine))["id"]
    await reboots(machine)
    await pool.until("SELECT needs_line FROM leases WHERE id = $1", lease)
    await pool.renew_line(lease)
    ready = await pool.finished(lease)

    async with a_service_in_the_session(machine):
        await machine.stop()
        await machine.start()
        assert (await told_again(pool, ready))["status"] == "active"
        again = await pool.lease(lease)
        assert (again["status"], machine.count_starts()) == ("active", 2)


async def test_who_was_away_too_long_finds_the_person_moved_and_is_cleaned(
    pool: Pool, machine: Machine, new_machine: NewMachine
) -> None:
    lease = await pool.request_job(machine.job("touch left; sleep 60"))
    await machine.start()
    await pool.settled(lease)
    await reached(lambda: machine.count_starts() == 1)
    spare = await new_machine("vm-2")
    await spare.start()
    await machine.loses_power()
    await pool.owner.execute("UPDATE vms SET status = 'failed', reason = 'lost' WHERE hostname = 'vm-1'")
    await pool.until("SELECT status = 'active' AND hostname = 'vm-2' FROM leases WHERE id = $1", lease)

    await machine.start()

    await pool.available(machine)
    moved = await pool.lease(lease)
    assert (moved["status"], moved["trouble"], moved["moves"]) == ("active", "lost", 1)
    await reached(lambda: machine.count_starts() == 2)  # the job notes it in one place: once on each machine
    assert not machine.state.session.exists()
    assert await is_well(pool)


async def test_the_holder_of_a_desktop_whose_machine_is_gone_is_asked_for_a_line_on_the_spare(
    pool: Pool, machine: Machine, new_machine: NewMachine
) -> None:
    lease: UUID = (await with_a_desktop(pool, machine))["id"]
    spare = await new_machine("vm-2")
    await spare.start()
    await machine.loses_power()

    await pool.owner.execute("UPDATE vms SET status = 'failed', reason = 'lost' WHERE hostname = 'vm-1'")

    await pool.until("SELECT hostname = 'vm-2' AND needs_line FROM leases WHERE id = $1", lease)
    assert spare.count_starts() == 0
    await pool.renew_line(lease)
    moved = await pool.finished(lease)
    assert (moved["status"], moved["hostname"], moved["moves"]) == ("active", "vm-2", 1)
    assert (machine.count_starts(), spare.count_starts()) == (1, 1)
    assert await is_well(pool)

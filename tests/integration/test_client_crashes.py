"""A client that is killed at any step and started again starts no command twice and loses no machine."""

import asyncio
from uuid import UUID

import pytest

from client.processes import Belongings, find_remains
from client.session import Session
from tests.support.machine import Machine, Pool, reached

KILLED = -9
SLEEPS = "sleep 600"
ENDS = "true"

GOES_ON = ("active", None, {1})
IS_UNKNOWN = ("failed", "unknown", {0, 1})
"""Killed about when the command was started: it may have come to its first line or not."""

# step → what the command does, and what becomes of the lease: status, failure, how often the command may have started
JOB = {
    "recovered": (ENDS, GOES_ON),
    "claimed": (ENDS, GOES_ON),
    "intent": (ENDS, ("failed", "unknown", {0})),
    "started": (SLEEPS, IS_UNKNOWN),
    "reported started": (SLEEPS, IS_UNKNOWN),
    "exited": (ENDS, ("failed", "unknown", {1})),
    "done": (ENDS, GOES_ON),
    "reported exited": (ENDS, GOES_ON),
}
CLEANING = ["stopped", "fenced", "wiped", "cleaned"]


async def killed_and_started_again(machine: Machine, step: str) -> None:
    assert await (await machine.start(die_at=step)).ended() == KILLED
    await machine.start()


async def comes_back_clean(pool: Pool, machine: Machine) -> None:
    await pool.available(machine)
    assert not machine.state.session.exists()
    assert await pool.owner.fetch("SELECT * FROM broken_invariants()") == []


async def survives_or_fails_visibly(
    pool: Pool, machine: Machine, lease: UUID, step: str, unknown: tuple[str, str | None] = ("failed", "unknown")
) -> None:
    """The lease's command whose client is killed at that step becomes what JOB says, or what is unknown here."""
    status, failure, starts = JOB[step][1]
    if failure == "unknown":
        status, failure = unknown
    await killed_and_started_again(machine, step)
    ended = await pool.finished(lease)
    assert (ended["status"], ended["failure"]) == (status, failure)
    assert machine.count_starts() in starts
    await pool.end(lease)
    await comes_back_clean(pool, machine)


@pytest.mark.parametrize("step", JOB)
async def test_a_job_survives_a_kill_or_fails_visibly(pool: Pool, machine: Machine, step: str) -> None:
    lease = await pool.request_job(machine.job(JOB[step][0]))
    await survives_or_fails_visibly(pool, machine, lease, step)


@pytest.mark.parametrize("step", JOB)
async def test_a_desktop_survives_a_kill_or_its_holder_is_asked_for_a_line(
    pool: Pool, machine: Machine, step: str
) -> None:
    machine.start_host(JOB[step][0])
    await survives_or_fails_visibly(pool, machine, await pool.request_desktop(), step, unknown=("assigned", None))


@pytest.mark.parametrize("step", CLEANING)
async def test_a_machine_whose_client_is_killed_while_it_cleans_is_cleaned_all_the_same(
    pool: Pool, machine: Machine, step: str
) -> None:
    lease = await pool.request_job(machine.job("echo mine > left-behind; sleep 600"))
    client = await machine.start(die_at=step)
    await reached(lambda: machine.count_starts() == 1)
    await pool.settled(lease)
    await pool.end(lease)
    assert await client.ended() == KILLED
    await machine.start()
    await comes_back_clean(pool, machine)
    assert machine.count_starts() == 1


async def test_the_next_lease_is_served_after_a_kill(pool: Pool, machine: Machine) -> None:
    first = await pool.request_job(machine.job())
    await killed_and_started_again(machine, "intent")
    second = await pool.request_job(machine.job())
    assert (await pool.finished(first))["failure"] == "unknown"
    assert (await pool.finished(second))["exit_code"] == 0
    assert machine.count_starts() == 1


async def test_nothing_that_a_command_started_outlives_a_killed_client(pool: Pool, machine: Machine) -> None:
    await pool.request_job(machine.job("trap '' HUP TERM; sleep 600"))
    client = await machine.start()
    await reached(lambda: machine.count_starts() == 1)
    await client.kill()
    await machine.start()
    await comes_back_clean(pool, machine)
    assert find_remains(Belongings(str(machine.state.session), None)) == []


async def test_a_second_client_on_the_same_machine_ends_at_once_and_says_why(pool: Pool, machine: Machine) -> None:
    lease = await pool.request_job(machine.job())
    await machine.start()
    await pool.finished(lease)
    second = await machine.start()
    assert await second.ended() == 1
    assert "already runs" in second.log
    assert machine.count_starts() == 1


async def test_two_clients_that_are_started_together_start_one_command(pool: Pool, machine: Machine) -> None:
    lease = await pool.request_job(machine.job())
    clients = [await machine.start(), await machine.start()]
    await asyncio.wait([client.end for client in clients], return_when=asyncio.FIRST_COMPLETED)
    assert (await pool.finished(lease))["status"] == "active"
    assert machine.count_starts() == 1
    assert [client.process.returncode for client in clients if client.end.done()] == [1]


async def test_a_client_that_is_asked_to_stop_stops_its_command_which_is_then_unknown(
    pool: Pool, machine: Machine
) -> None:
    lease = await pool.request_job(machine.job(SLEEPS))
    client = await machine.start()
    await pool.settled(lease)
    client.process.terminate()
    assert await client.ended() == 0
    await machine.start()
    await comes_back_clean(pool, machine)
    assert (await pool.lease(lease))["failure"] == "unknown"


async def test_a_desktop_that_is_ready_outlives_a_restart_of_the_client(pool: Pool, machine: Machine) -> None:
    lease = await pool.request_desktop()
    client = await machine.start()
    ready = await pool.finished(lease)
    client.process.terminate()
    assert await client.ended() == 0
    await machine.start()
    await pool.until("SELECT version > $2 FROM leases WHERE id = $1", lease, ready["version"])
    assert (await pool.lease(lease))["status"] == "active"
    assert machine.state.session.exists()


async def test_a_desktop_that_outlived_its_client_ends_when_its_machine_is_failed(pool: Pool, machine: Machine) -> None:
    machine.start_host("sleep 600 > /dev/null 2>&1 &")
    lease = await pool.request_desktop()
    client = await machine.start()
    await pool.finished(lease)
    client.process.terminate()
    assert await client.ended() == 0
    belongings = Session(machine.state.session).belongings
    assert find_remains(belongings)

    await pool.owner.execute("SELECT fail_vm('vm-1')")
    await machine.start()
    await reached(lambda: not find_remains(belongings))

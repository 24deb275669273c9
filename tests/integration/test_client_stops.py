"""A client that is told to stop stops what it runs, at whatever moment that comes and however often it is said."""

import shlex
from collections.abc import AsyncIterator

import pytest_asyncio

from client.processes import find_remains, kill_remains
from client.session import Session
from tests.support.machine import Machine, Pool, reached

UNMOVED = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: open("told", "w").close())
open("ready", "a").write("x")
while True:
    time.sleep(60)
"""


@pytest_asyncio.fixture
async def session(machine: Machine) -> AsyncIterator[Session]:
    session = Session(machine.state.session)
    yield session
    await kill_remains(session.belongings)


def unmoved(machine: Machine) -> list[str]:
    """A job that notes that it was asked to end, and goes on, as its child does."""
    program = f"python3 -ISc {shlex.quote(UNMOVED)}"
    return machine.job(f"{program} & exec {program}")


def is_told(session: Session) -> bool:
    """Whether the job was asked to end; one that stood still until it was killed could not say so."""
    return (session.directory / "told").exists() or not find_remains(session.belongings)


async def is_unmoved(session: Session) -> None:
    """Wait until nothing but a kill ends the job any more."""
    ready = session.directory / "ready"
    await reached(lambda: ready.exists() and len(ready.read_text()) == 2)


async def test_a_client_that_is_stopped_while_it_ends_a_lease_leaves_nothing_running(
    pool: Pool, machine: Machine, session: Session
) -> None:
    async with machine.serving():
        lease = await pool.request_job(unmoved(machine))
        await is_unmoved(session)
        await pool.end(lease)
        await reached(lambda: is_told(session))

    assert find_remains(session.belongings) == []


async def test_a_client_that_is_told_twice_to_stop_leaves_nothing_running(
    pool: Pool, machine: Machine, session: Session
) -> None:
    client = await machine.start()
    await pool.request_job(unmoved(machine))
    await is_unmoved(session)
    client.process.terminate()
    await reached(lambda: is_told(session))
    client.process.terminate()

    assert await client.ended() == 0
    assert find_remains(session.belongings) == []

"""`lablink db migrate` while people ask: who is refused is told when to try again, and nothing accepted is lost."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest_asyncio

from tests.support.admin import Done, lablink
from tests.support.crowd import Answer, Crowd, coming
from tests.support.database import Database
from tests.support.machine import Machine, Pool
from tests.support.service import connected, ready, running_service, settings_for

BUSY = "urn:lablink:busy"


@pytest_asyncio.fixture
async def machines(database: Database, tmp_path: Path) -> AsyncIterator[list[Machine]]:
    """Machines whose clients run."""
    machines = [Machine.of(await database.vm(f"vm-{n}"), tmp_path / f"vm-{n}") for n in range(3)]
    for machine in machines:
        await machine.start()
    yield machines
    for machine in machines:
        await machine.stop()


@pytest_asyncio.fixture
async def crowd(database: Database, tmp_path: Path) -> AsyncIterator[Crowd]:
    """People, each of whom brings a command that notes its number, and a service that they can ask."""
    settings = settings_for(database, tmp_path, "pool.programs=[sh]")
    async with running_service(settings) as service, service.client() as client:
        await ready(service.service)
        await connected(service.service)
        yield Crowd(client, lambda number: f"sh -c 'echo {number} >> {tmp_path}/starts'")


@dataclass(frozen=True, slots=True)
class Migrated:
    """A migrate that ended, and from when to when it ran, in seconds of the loop's clock."""

    done: Done
    began: float
    ended: float

    def explains(self, refused: Answer) -> bool:
        """Whether that answer may be what it is because this one had its lock, or waited for it."""
        is_meanwhile = refused.asked <= self.ended and refused.told >= self.began
        return is_meanwhile and refused.problem == BUSY and int(refused.retry_after or 0) > 0


async def migrated(database: Database) -> Migrated:
    loop = asyncio.get_running_loop()
    began = loop.time()
    return Migrated(await lablink(database, "db", "migrate"), began, loop.time())


async def test_while_the_database_is_migrated_people_get_machines_and_nothing_accepted_is_lost(
    database: Database, machines: list[Machine], crowd: Crowd, tmp_path: Path
) -> None:
    pool = await Pool.of(database)
    async with coming(crowd):
        await crowd.accepts(20)
        runs = [await migrated(database), await migrated(database)]  # tables: see tests/replicas
        await crowd.accepts(20)

    assert [run.done.returncode for run in runs] == [0, 0], runs
    assert [each for each in crowd.refused if not any(run.explains(each) for run in runs)] == []
    assert await crowd.lost(pool.owner) == []
    await crowd.leave()
    for machine in machines:
        await pool.available(machine)
    assert await pool.owner.fetch("SELECT * FROM broken_invariants()") == []
    started = (tmp_path / "starts").read_text().split()
    assert len(started) == len(set(started))


async def test_a_migrate_that_an_open_transaction_keeps_waiting_says_whose_it_is_and_people_go_on(
    database: Database, crowd: Crowd
) -> None:
    reader = await database.connect("lablink", application_name="psql")
    async with reader.transaction():
        await reader.fetch("SELECT * FROM vm_status")
        async with coming(crowd):
            migrating = asyncio.create_task(migrated(database))
            await crowd.accepts(20)
            run = await migrating

    name = f"psql of lablink (process {reader.get_server_pid()})"
    assert run.done.returncode == 1
    *waits, gives_up = run.done.stderr.splitlines()
    assert any(line.startswith(f"Waiting for {name}, whose transaction has been open for ") for line in waits)
    assert gives_up.startswith(f"The database is as it was: {name} still holds what this needs. Have it COMMIT")
    assert [each for each in crowd.refused if not run.explains(each)] == []
    assert await crowd.lost(reader) == []
    failed = await reader.fetchval("SELECT error FROM operations WHERE status = 'failed'")
    assert name in failed

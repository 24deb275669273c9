"""Three of ten machines die under load: whoever had one goes on elsewhere, and no command starts twice."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio

from tests.sql.promises import broken, facts
from tests.support.database import Database
from tests.support.hub import hub_machine
from tests.support.machine import Machine, Pool, reached
from tests.support.service import RunningService, ready, running_service, settings_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FLEET, HOLDERS, VISITORS = 50, 33, 3
KILLED, BACK = 15, 3
"""Machines whose processes are killed at one moment, and how many of those are started again at once."""

LONG_AGO = 3600.0
LIMIT_SECONDS = 150.0
ALL_CAME = "SELECT count(*) = $2 FROM vm_heartbeats WHERE seen_at > $1"
ALL_WORK = "SELECT bool_and(status = 'active') AND sum(moves) = $2 FROM leases WHERE id = ANY ($1)"
LOST = "SELECT count(*) FROM vms WHERE reason = 'lost'"
A_WHILE_AGO = """
    ALTER TABLE vms DISABLE TRIGGER USER;
    UPDATE vms SET updated_at = updated_at - interval '5 minutes' WHERE reason = 'lost';
    ALTER TABLE vms ENABLE TRIGGER USER
"""


@pytest.fixture(params=["direct", "hub"])
def transport(request: pytest.FixtureRequest) -> str:
    """How machines speak."""
    return str(request.param)


@pytest_asyncio.fixture
async def service(database: Database, tmp_path: Path, transport: str) -> AsyncIterator[RunningService]:
    await database.let_pass(LONG_AGO)  # so that PostgreSQL's own start excuses nobody
    async with running_service(settings_for(database, tmp_path, f"transport={transport}")) as running:
        await ready(running.service)
        yield running


@dataclass(slots=True)
class Workshop:
    """A fleet of processes, and those who hold a machine of it: each start of their command is noted in a file."""

    database: Database
    pool: Pool
    directory: Path
    fleet: list[Machine] = field(default_factory=list)
    holders: list[UUID] = field(default_factory=list)

    async def opens(self, service: RunningService, transport: str) -> None:
        """All machines run, and every holder's command does."""
        await self.pool.owner.execute("UPDATE pools SET restart_on_move = true")
        for number in range(FLEET):
            self.fleet.append(await hub_machine(self.database, self.directory / f"vm-{number}", f"vm-{number}"))
            if transport == "hub":
                self.fleet[-1].speaks_over_the_hub(service.url)
        enrolled = await self.pool.owner.fetchval("SELECT clock()")
        await asyncio.gather(*(machine.start() for machine in self.fleet))
        await self.until(ALL_CAME, enrolled, FLEET)
        for number in range(HOLDERS):
            argv = ["sh", "-c", f"echo x >> {self.notes(number)}; exec sleep 600"]
            self.holders.append(await self.pool.request_job(argv))
        await self.all_work()

    def notes(self, number: int) -> Path:
        return self.directory / f"starts-{number}"

    def starts(self, number: int) -> int:
        """How often a holder's command has begun."""
        return self.notes(number).read_text().count("x") if self.notes(number).exists() else 0

    async def all_work(self, moves: int = 0) -> None:
        """Wait until all holders' commands run, after so many moves in all, and have noted that."""
        await self.until(ALL_WORK, self.holders, moves)
        await reached(lambda: sum(self.starts(number) for number in range(HOLDERS)) >= HOLDERS + moves)

    async def until(self, question: str, *arguments: object) -> None:
        """Wait until the answer is true."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while not await self.pool.owner.fetchval(question, *arguments):
                await self.pool.owner.fetchval("SELECT pg_sleep(0.1)")

    async def are_silent(self, dead: list[Machine]) -> None:
        """Nobody is given one of these any more: they are silent for longer than the network is waited for."""
        for machine in dead:
            await self.database.age(machine.vm, 600)

    async def are_given_up(self, dead: list[Machine]) -> None:
        """More than a fifth are silent: they go in two steps, whether the service sees to it or we do."""
        lost = 0
        async with asyncio.timeout(LIMIT_SECONDS):
            while lost < len(dead):
                await self.pool.owner.execute("SELECT sweep_lost($1)", LONG_AGO)
                lost = await self.pool.owner.fetchval(LOST)
                assert lost in (0, FLEET // 5, len(dead))
                await self.pool.owner.execute(A_WHILE_AGO)

    @asynccontextmanager
    async def visited(self) -> AsyncIterator[None]:
        """Others come, have a command run and go, all the time."""
        closes = asyncio.Event()
        visits = [asyncio.create_task(self._visits(closes)) for _ in range(VISITORS)]
        try:
            yield
        finally:
            closes.set()
            await asyncio.gather(*visits)

    async def _visits(self, closes: asyncio.Event) -> None:
        pool = Pool(await self.database.connect("lablink"))
        while not closes.is_set():
            lease = await pool.request_job(["sh", "-c", "true"])
            await pool.finished(lease)
            await pool.end(lease)


@pytest_asyncio.fixture
async def workshop(
    database: Database, service: RunningService, transport: str, tmp_path: Path
) -> AsyncIterator[Workshop]:
    workshop = Workshop(database, await Pool.of(database), tmp_path)
    try:
        await workshop.opens(service, transport)
        yield workshop
    finally:
        await asyncio.gather(*(machine.stop() for machine in workshop.fleet))


async def test_whoever_had_a_machine_that_died_goes_on_elsewhere_and_nothing_starts_twice(workshop: Workshop) -> None:
    killed = random.Random(6).sample(workshop.fleet, KILLED)
    names = [machine.vm.hostname for machine in killed]
    before = await workshop.pool.owner.fetch("SELECT id, hostname FROM leases WHERE id = ANY ($1)", workshop.holders)

    async with workshop.visited():
        await asyncio.gather(*(machine.loses_power() for machine in killed))
        await workshop.are_silent(killed[BACK:])
        await asyncio.gather(*(machine.start() for machine in killed[:BACK]))
        await workshop.are_given_up(killed[BACK:])
        await workshop.all_work(sum(row["hostname"] in names for row in before))

    moves = dict[UUID, int]()
    for lease in await workshop.pool.owner.fetch("SELECT id, moves FROM leases"):
        moves[lease["id"]] = lease["moves"]
    assert all(moves[row["id"]] == (row["hostname"] in names) for row in before)
    for number, holder in enumerate(workshop.holders):
        assert workshop.starts(number) == moves[holder] + 1
    assert await workshop.pool.owner.fetch("SELECT * FROM broken_invariants()") == []
    assert broken(await facts(workshop.pool.owner)) == []

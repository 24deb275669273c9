"""Times one claim alone, through one connection, in small and large fleets, beside SELECT-then-UPDATE."""

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

from client.network import Connection
from tests.bench.figures import Row, Section, Value, figure
from tests.bench.ground import Ground
from tests.bench.options import Options, Progress
from tests.bench.sides.guide import GIVE_BACK, LOOK, TAKE

WARM_UP = 20
SEED = 1
AIM = 1.3
REQUEST = """
    SELECT lease_id FROM request_vm($1, 'job', '{"argv": ["echo"]}', NULL, 'echo', $2, $2)
"""
CLEANED = """
    UPDATE vms SET status = 'available', cleaned_epoch = epoch
    WHERE id = (SELECT vm_id FROM leases WHERE id = $1::text::uuid) AND status = 'cleaning'
"""


_people = count()


@dataclass(slots=True)
class Subject:
    """One way of claiming in one fleet: `claim` is timed, with and without its commit; `undo` is not."""

    connection: Connection
    claim: Callable[[], Awaitable[str]]
    undo: Callable[[str], Awaitable[None]]
    statement: list[int] = field(default_factory=list)
    committed: list[int] = field(default_factory=list)

    async def round(self) -> None:
        """One claim, timed, and given back."""
        transaction = self.connection.transaction()
        await transaction.start()
        began = time.perf_counter_ns()
        claimed = await self.claim()
        done = time.perf_counter_ns()
        await transaction.commit()
        self.committed.append(time.perf_counter_ns() - began)
        self.statement.append(done - began)
        await self.undo(claimed)


async def measure(own: Ground, options: Options, progress: Progress) -> list[Section]:
    """The section about a claim. The sizes take turns, so that whatever disturbs the machine disturbs all alike.

    The two ways do not: the naive one reads so much that it empties the processor's caches for whoever is next.
    """
    subjects: dict[tuple[str, int], Subject] = {}
    async with AsyncExitStack() as opened:
        for way, make in (("ours", _ours), ("naive", _naive)):
            fleets = {(way, size): await opened.enter_async_context(make(own, size)) for size in options.sizes}
            await _take_turns(list(fleets.values()), options.rounds, progress)
            subjects |= fleets
    return [_section(subjects, options)]


async def _take_turns(subjects: list[Subject], rounds: int, progress: Progress) -> None:
    order = random.Random(SEED)
    for number in range(WARM_UP + rounds):
        if number == WARM_UP:
            for subject in subjects:
                subject.statement.clear()
                subject.committed.clear()
        for subject in order.sample(subjects, len(subjects)):
            await subject.round()
        progress(0.5 / (WARM_UP + rounds))


@asynccontextmanager
async def _ours(own: Ground, size: int) -> AsyncIterator[Subject]:
    database = f"bench_claim_{size}"
    await own.clone(database)
    await own.fill(database, size)
    service, owner = await asyncio.gather(own.connect("lablink_app", database), own.connect("lablink", database))
    await owner.execute("UPDATE pools SET programs = '{echo}'")
    token = hashlib.sha256(b"bench").digest()

    async def claim() -> str:
        return str(await service.fetchval(REQUEST, f"{next(_people)}@bench.test", token))

    async def undo(lease: str) -> None:
        await owner.execute("SELECT end_lease($1::text::uuid)", lease)
        await owner.execute(CLEANED, lease)

    try:
        yield Subject(service, claim, undo)
    finally:
        await asyncio.gather(service.close(), owner.close())


@asynccontextmanager
async def _naive(own: Ground, size: int) -> AsyncIterator[Subject]:
    database = f"bench_naive_claim_{size}"
    await own.naive(database, size)
    connection = await own.connect("lablink", database)

    async def claim() -> str:
        hostname = str(await connection.fetchval(LOOK))
        await connection.execute(TAKE, hostname, f"{next(_people)}@bench.test")
        return hostname

    async def undo(hostname: str) -> None:
        await connection.execute(GIVE_BACK, hostname)

    try:
        yield Subject(connection, claim, undo)
    finally:
        await connection.close()


def _section(subjects: dict[tuple[str, int], Subject], options: Options) -> Section:
    section = Section("The claim alone, through one connection")
    for size in options.sizes:
        ours, naive = subjects["ours", size], subjects["naive", size]
        section.rows.append(Row(f"{size:,} VMs: statement", figure(ours.statement), figure(naive.statement)))
        section.rows.append(Row(f"{size:,} VMs: with commit", figure(ours.committed), figure(naive.committed)))
    small, large = min(options.sizes), max(options.sizes)
    growth = {way: _growth(subjects[way, small], subjects[way, large]) for way in ("ours", "naive")}
    what = f"the statement at {large:,} VMs : at {small:,}"
    section.values.append(Value(what, growth["ours"], growth["naive"], "×", AIM))
    return section


def _growth(small: Subject, large: Subject) -> float | None:
    before, after = figure(small.statement), figure(large.statement)
    return round(after.p50 / before.p50, 3) if before and after else None

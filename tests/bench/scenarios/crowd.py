"""Many who wait for a claim at the same time: claimed together, one by one, and in the naive way."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from math import inf
from statistics import median

import asyncpg

from client.network import Connection
from tests.bench.cores import server_seconds
from tests.bench.figures import Row, Section, Value, figure, typical
from tests.bench.ground import FLUSH_MS, Ground
from tests.bench.load import SoldOut, at_once
from tests.bench.options import CONNECTIONS, Options, Progress
from tests.bench.sides.guide import GIVE_BACK_ALL, LOOK, TAKE
from tests.bench.sides.stock import stock

WAITING = 200
MACHINES = 10_000
SHARE = 0.9
"""Of the machines, how many are claimed at most: the last ones are hard to find."""

RATE_AIM, P99_AIM = 15_000.0, 15.0
Claim = Callable[[], Awaitable[object]]
_people = count()


@dataclass(slots=True)
class Crowd:
    """What became of a crowd: nanoseconds of each claim, how long all took, and the server's time in seconds."""

    times: list[int]
    seconds: float
    server: float = 0.0

    @property
    def rate(self) -> float:
        """Claims a second."""
        return len(self.times) / self.seconds


async def crowd(claim: Claim, waiting: int, seconds: float, most: float = inf) -> Crowd:
    """So many who claim one after the other, each anew when served, until the time is over or there are so many."""

    async def timed() -> int:
        began = time.perf_counter_ns()
        await claim()
        return time.perf_counter_ns() - began

    began = time.perf_counter()
    times = await at_once(timed, waiting, most, seconds)
    return Crowd(times, time.perf_counter() - began)


async def measure(own: Ground, options: Options, progress: Progress) -> list[Section]:
    """The sections about a crowd, with either flush."""
    return [await _section(own, options, progress, slow_flush=slow_flush) for slow_flush in (False, True)]


async def _section(own: Ground, options: Options, progress: Progress, *, slow_flush: bool) -> Section:
    suffix, hosts = ("_slow" if slow_flush else ""), min(MACHINES, max(options.sizes))
    many, few = min(WAITING, hosts // 20), min(2 * CONNECTIONS, hosts // 20)
    rounds: dict[str, list[Crowd]] = {"together": [], "alone": [], "naive": []}
    async with (
        stock(own, f"bench_crowd{suffix}", hosts, slow_flush=slow_flush) as ours,
        naive_claims(own, f"bench_naive_crowd{suffix}", hosts, slow_flush=slow_flush) as naive,
    ):
        for _ in range(options.turns):
            for name, claim, refill, first in (
                ("together", ours.claim, ours.refill, many),
                ("alone", ours.claim_alone, ours.refill, few),
                ("naive", naive.claim, naive.refill, few),
            ):
                await refill()
                await crowd(claim, first, options.crowd_seconds, first)  # connections open, plans are made
                before = server_seconds(own.server.process.pid)
                done = await crowd(claim, WAITING, options.crowd_seconds, int(SHARE * hosts) - first)
                done.server = server_seconds(own.server.process.pid) - before
                rounds[name].append(done)
            progress(0.5 / options.turns)
        twice = await ours.given_twice()
        await naive.refill()
    return _told(rounds, twice, naive.twice, slow_flush=slow_flush)


def _told(rounds: dict[str, list[Crowd]], twice: int, naive_twice: int, *, slow_flush: bool) -> Section:
    section = Section(f"{WAITING} people who wait for a claim" + (f", flush +{FLUSH_MS} ms" if slow_flush else ""))
    all_times = {name: figure(each for done in crowds for each in done.times) for name, crowds in rounds.items()}
    rates = {name: [done.rate for done in crowds] for name, crowds in rounds.items()}
    aim = (inf, P99_AIM) if slow_flush else None
    section.rows.append(Row("a claim, with all that wait", all_times["together"], all_times["naive"], aim))
    section.rows.append(Row("a claim, one by one", all_times["alone"]))
    section.values.append(
        typical("claims", rates["together"], rates["naive"], "/s", RATE_AIM if slow_flush else None, more=True)
    )
    section.values.append(typical("claims one by one", rates["alone"], unit="/s", more=True))
    section.values.append(
        Value("together : one by one", median(rates["together"]) / median(rates["alone"]), unit="×", more=True)
    )
    mine, theirs = (
        sum(d.server for d in rounds[n]) / max(1, sum(len(d.times) for d in rounds[n])) * 1e3
        for n in ("together", "naive")
    )
    section.values.append(Value("PostgreSQL's processor time a claim", mine, theirs, "ms"))
    section.values.append(Value("machines given twice", twice, naive_twice, aim=0))
    return section


@dataclass(slots=True)
class NaiveClaims:
    """The guide's table, and people who look for a free machine and then take it, over as many connections."""

    pool: "asyncpg.Pool[asyncpg.Record]"
    owner: Connection
    given: list[str] = field(default_factory=list)
    twice: int = 0
    """How many too many were given, until the machines were last free again."""

    async def claim(self) -> None:
        """One person's request. Raises SoldOut."""
        async with self.pool.acquire() as connection:
            hostname = await connection.fetchval(LOOK)
            if hostname is None:
                raise SoldOut
            await connection.execute(TAKE, hostname, f"{next(_people)}@bench.test")
        self.given.append(hostname)

    async def refill(self) -> None:
        """All machines are free again."""
        self.twice += len(self.given) - len(set(self.given))
        self.given.clear()
        await self.owner.execute(GIVE_BACK_ALL)
        await self.owner.execute("VACUUM ANALYZE vms")


@asynccontextmanager
async def naive_claims(own: Ground, database: str, hosts: int, *, slow_flush: bool) -> AsyncIterator[NaiveClaims]:
    """A naive database of that name, with somebody who listens."""
    await own.naive(database, hosts)
    if slow_flush:
        await own.slow_flush(database)
    owner, listener = await asyncio.gather(*(own.connect("lablink", database) for _ in range(2)))
    await listener.add_listener("vm_updates", lambda *_: None)
    dsn = own.dsn("lablink", database)
    try:
        async with asyncpg.create_pool(dsn, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
            yield NaiveClaims(pool, owner)
    finally:
        await asyncio.gather(owner.close(), listener.close())

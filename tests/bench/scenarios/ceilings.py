"""What bare PostgreSQL does on this machine, and one claim beside it in the same turns.

Each thing is timed twice: as it is, and with every flush of the log slowed by a millisecond, as on a network volume.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import asyncpg

from client.network import Connection
from tests.bench.figures import Row, Section, Value, figure, times
from tests.bench.ground import FLUSH_MS, Ground
from tests.bench.options import CONNECTIONS, Options, Progress
from tests.bench.scenarios.crowd import crowd
from tests.bench.sides.stock import stock

CHANNEL = "bench"
WARM_UP = 20
MACHINES = 10_000
AIM = 1.5
TABLE = "CREATE TABLE raw (id integer PRIMARY KEY, n integer NOT NULL)"
ROWS = "INSERT INTO raw SELECT g, 0 FROM generate_series(1, 1000) g"
COMMIT = "UPDATE raw SET n = n + 1 WHERE id = 1 + $1 % 1000"
COMMIT_AND_TELL = f"""
    WITH changed AS (UPDATE raw SET n = n + 1 WHERE id = 1 + $1 % 1000 RETURNING id)
    SELECT pg_notify('{CHANNEL}', id::text) FROM changed
"""
TELL = f"SELECT pg_notify('{CHANNEL}', $1)"

COMMITTED, TOLD, HEARD, CLAIMED = "one row, committed", "the same with NOTIFY", "NOTIFY → heard", "a lone claim"
Samples = dict[str, list[int]]


async def measure(own: Ground, options: Options, progress: Progress) -> list[Section]:
    """The section about PostgreSQL's own limits."""
    section = Section("Bare PostgreSQL, and one claim", ours="flush", beside=f"flush +{FLUSH_MS} ms")
    fast, slow = [await _ceiling(own, options, slow_flush=flush) for flush in (False, True)]
    progress(0.6)
    quick, late = ({name: figure(sample) for name, sample in side.items()} for side in (fast, slow))
    section.rows += [Row(name, quick[name], late[name]) for name in quick]
    section.values += times("a lone claim : a commit with NOTIFY", quick[CLAIMED], quick[TOLD], (AIM, None))
    section.values += times(
        f"a lone claim : a commit with NOTIFY, flush +{FLUSH_MS} ms", late[CLAIMED], late[TOLD], (AIM, None)
    )
    section.values += [await _rates(own, options, name, query) for name, query in RATES.items()]
    progress(0.4)
    section.remarks.append(
        f"The flush is slowed by PostgreSQL's own commit_delay: who flushes waits {FLUSH_MS} ms, holding the lock."
    )
    return [section]


RATES = {f"commits over {CONNECTIONS} connections": COMMIT, "the same with NOTIFY": COMMIT_AND_TELL}


async def _ceiling(own: Ground, options: Options, *, slow_flush: bool) -> Samples:
    """Each thing in turn, so that whatever disturbs the machine disturbs all alike."""
    samples: Samples = {COMMITTED: [], TOLD: [], HEARD: [], CLAIMED: []}
    suffix, hosts = ("_slow" if slow_flush else ""), min(MACHINES, max(options.sizes))
    async with (
        raw(own, f"bench_raw{suffix}", slow_flush=slow_flush) as (speaker, hears),
        stock(own, f"bench_lone{suffix}", hosts, slow_flush=slow_flush) as machines,
    ):
        turns: dict[str, Callable[[int], Awaitable[object]]] = {
            COMMITTED: lambda n: speaker.fetch(COMMIT, n),
            TOLD: lambda n: speaker.fetch(COMMIT_AND_TELL, n),
            HEARD: hears,
            CLAIMED: lambda _: machines.claim(),
        }
        for number in range(WARM_UP + min(options.rounds, hosts - WARM_UP)):
            for name, work in turns.items():
                began = time.perf_counter_ns()
                await work(number)
                if number >= WARM_UP:
                    samples[name].append(time.perf_counter_ns() - began)
    return samples


@asynccontextmanager
async def raw(
    own: Ground, database: str, *, slow_flush: bool = False
) -> AsyncIterator[tuple[Connection, Callable[[int], Awaitable[object]]]]:
    """A connection to a database with nothing but a table, and what sends a NOTIFY and returns once it was heard."""
    await own.make(database)
    if slow_flush:
        await own.slow_flush(database)
    speaker, listener = await asyncio.gather(*(own.connect("lablink", database) for _ in range(2)))
    heard = asyncio.Event()
    await speaker.execute(f"{TABLE}; {ROWS}")
    await listener.add_listener(CHANNEL, lambda *_: heard.set())

    async def hears(number: int) -> None:
        heard.clear()
        await speaker.fetch(TELL, str(number))
        await heard.wait()

    try:
        yield speaker, hears
    finally:
        await asyncio.gather(speaker.close(), listener.close())


async def _rates(own: Ground, options: Options, name: str, query: str) -> Value:
    """How many commits a second many connections make together, with either flush."""
    rates = []
    for database in ("bench_raw", "bench_raw_slow"):
        dsn = own.dsn("lablink", database)
        async with asyncpg.create_pool(dsn, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
            done = await crowd(partial(_execute, pool, query), CONNECTIONS, options.crowd_seconds)
            rates.append(done.rate)
    return Value(name, rates[0], rates[1], "/s", more=True)


async def _execute(pool: "asyncpg.Pool[asyncpg.Record]", query: str) -> None:
    await pool.execute(query, random.randrange(1000))

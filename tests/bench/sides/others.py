"""Other people's queues on the nearest equivalent: a job is put in, its handler is called.

Runs in an environment of its own (build/yardsticks), in which nothing but these queues and this package is.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pgqueuer
import procrastinate

from tests.bench.options import CONNECTIONS
from tests.bench.workers import Ready, be_worker

LIMIT_SECONDS = 90.0

WORKER: dict[str, Any] = {
    "concurrency": CONNECTIONS,
    "fetch_job_polling_interval": 1.0,  # what it does not hear of is found then; by itself it looks every 5 s
    "install_signal_handlers": False,
}

Enqueue = Callable[[Sequence[int]], Awaitable[object]]
"""Puts jobs of these numbers in; several are put in as the queue does it best."""

Called = Callable[[int], None]
"""To be told by the handler that it was called for a job."""


@asynccontextmanager
async def in_procrastinate(dsn: str, called: Called) -> AsyncIterator[Enqueue]:
    """procrastinate, which tells its workers with NOTIFY."""
    connector = procrastinate.PsycopgConnector(conninfo=dsn, min_size=CONNECTIONS, max_size=CONNECTIONS)
    app = procrastinate.App(connector=connector)

    async def handle(number: int) -> None:
        called(number)

    task = app.task(handle, name="handle")
    async with app.open_async():
        await app.schema_manager.apply_schema_async()

        async def enqueue(numbers: Sequence[int]) -> None:
            if len(numbers) == 1:
                await task.defer_async(number=numbers[0])
            else:
                await task.batch_defer_async(*({"number": number} for number in numbers))

        async with _beside(app.run_worker_async(**WORKER)):
            yield enqueue


@asynccontextmanager
async def in_pgqueuer(dsn: str, called: Called) -> AsyncIterator[Enqueue]:
    """pgqueuer, which does so too, and takes several jobs at a time."""
    async with asyncpg.create_pool(dsn, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
        queries = pgqueuer.Queries(pgqueuer.AsyncpgPoolDriver(pool))
        await queries.install()
        worker = await asyncpg.connect(dsn)
        queue = pgqueuer.PgQueuer(pgqueuer.AsyncpgDriver(worker))

        async def handle(job: Any) -> None:
            called(int(job.payload))

        queue.entrypoint("handle")(handle)

        async def enqueue(numbers: Sequence[int]) -> None:
            payloads: list[bytes | None] = [str(number).encode() for number in numbers]
            await queries.enqueue(["handle"] * len(numbers), payloads, [0] * len(numbers))

        try:
            async with _beside(queue.run()):
                yield enqueue
        finally:
            await worker.close()


@asynccontextmanager
async def _beside(work: Awaitable[object]) -> AsyncIterator[None]:
    """A worker of the queue's, which works for the time of the block."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


QUEUES = {"procrastinate": in_procrastinate, "pgqueuer": in_pgqueuer}


async def measure(task: dict[str, Any], ready: Ready, stop: asyncio.Event) -> None:
    """One queue: nanoseconds until a lone job's handler is called, then how many a second are, in two ways."""
    handled: dict[int, asyncio.Future[int]] = {}
    numbers = itertools.count()

    def called(number: int) -> None:
        handled.pop(number).set_result(time.perf_counter_ns())

    async with QUEUES[task["queue"]](task["dsn"], called) as enqueue:

        async def served(count: int = 1) -> int:
            """Put so many in together; nanoseconds until all were handled."""
            mine = list(itertools.islice(numbers, count))
            done = [handled.setdefault(number, asyncio.get_running_loop().create_future()) for number in mine]
            began = time.perf_counter_ns()
            await enqueue(mine)
            return max(await asyncio.gather(*done)) - began

        async with asyncio.timeout(LIMIT_SECONDS):
            await served(), await served()
            ready(task["queue"])
            alone = []
            for _ in range(task["alone"]):
                alone.append(await served())
                await asyncio.sleep(task["gap_seconds"])
            waiting = await _rate(served, task["waiting"], task["seconds"])
            together = task["together"] / (await served(task["together"]) / 1e9)
    ready({"alone": alone, "waiting": waiting, "together": together})
    await stop.wait()


async def _rate(served: Callable[[], Awaitable[int]], waiting: int, seconds: float) -> float:
    """Jobs a second with so many who put one in and wait for it, again and again."""
    times: list[int] = []
    began = time.perf_counter()

    async def person() -> None:
        while time.perf_counter() < began + seconds:
            times.append(await served())

    await asyncio.gather(*(person() for _ in range(waiting)))
    return len(times) / (time.perf_counter() - began)


if __name__ == "__main__":
    be_worker(measure)

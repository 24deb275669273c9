"""The allocator in a process of its own, and in it whoever asks for machines: what is timed is not HTTP's."""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
from fastapi import FastAPI

from allocator.cli.serve import COLLECT_AFTER
from allocator.config import load_settings
from allocator.local.installation import listening
from allocator.requesting import VmRequest
from allocator.server import Server, new_server
from allocator.service import Service
from client.command import JobCommand
from tests.bench.cores import server_seconds
from tests.bench.ground import free_all
from tests.bench.load import Answered, at_once, at_random, poisson
from tests.bench.process import becomes, many_files, resident
from tests.bench.workers import Ready, be_worker

COMMAND = JobCommand(("echo",))
SETTLE_SECONDS = 0.2
WARM_UP = 50
"""How many ask at once before anything is measured, five times: a connection's first request finds no plan made yet."""

TAKEN_UP_SECONDS = 3.0
ARRIVE_SECONDS = 60.0
ALL_TAKEN_UP = "SELECT NOT EXISTS (SELECT FROM leases WHERE status IN ('queued', 'assigned', 'claimed'))"


class Inside:
    """A running service, and what its machines are to be asked for."""

    def __init__(self, service: Service, superuser: "asyncpg.Connection[asyncpg.Record]", task: dict[str, Any]) -> None:
        self._service = service
        self._superuser = superuser
        self._postgres = task["postgres"]
        self._work = task["work"]
        self._number = 0
        self._looking = 0.0

    async def ask(self) -> Answered:
        """Ask for a machine as a person who was never here before."""
        self._number += 1
        request = VmRequest(
            f"p{self._number}@bench.test", COMMAND, COMMAND, f"token {self._number}", b"0" * 32, None, None, "default"
        )
        sent = time.monotonic_ns()
        accepted = await self._service.store.request_vm(request)
        return accepted.vm_id or 0, accepted.epoch or 0, sent, time.monotonic_ns()

    async def slices(self, rate: float, count: int, rounds: int) -> dict[str, Any]:
        """Rounds of so many requests, `rate` a second at random moments; between them all machines become free."""
        return await self._rounds([partial(at_random, self.ask, rate, count, seed) for seed in range(rounds)])

    async def crowds(self, waiting: int, count: int, rounds: int) -> dict[str, Any]:
        """Rounds of so many requests, of which so many wait at any moment."""
        return await self._rounds([partial(at_once, self.ask, waiting, count)] * rounds)

    async def _rounds(self, rounds: Sequence[Callable[[], Awaitable[list[Answered]]]]) -> dict[str, Any]:
        asked, cpu = [], {"allocator": 0.0, "postgres": 0.0, "seconds": 0.0}
        for each in rounds:
            before, began = self.used(), time.monotonic()
            asked.append(await each())
            if self._work:
                await becomes(lambda: self._superuser.fetchval(ALL_TAKEN_UP), TAKEN_UP_SECONDS)
            cpu["seconds"] += time.monotonic() - began
            for name, seconds in self.used().items():
                cpu[name] += seconds - before[name]
            await asyncio.sleep(SETTLE_SECONDS)  # the last machines hear, or report that they started
            await free_all(self._superuser)
        return {"asked": asked, "cpu": cpu}

    async def idle(self, seconds: float) -> dict[str, float]:
        """What the fleet costs while nothing happens, as shares of one core."""
        before, began = self.used(), time.monotonic()
        await asyncio.sleep(seconds)
        took = time.monotonic() - began
        return {name: (used - before[name]) / took for name, used in self.used().items()}

    def used(self) -> dict[str, float]:
        """Seconds of processor time so far, without those that it took to look at PostgreSQL's."""
        began = time.process_time()
        postgres = server_seconds(self._postgres)
        self._looking += time.process_time() - began
        return {"allocator": time.process_time() - self._looking, "postgres": postgres}


async def round_trips(dsn: str, rate: float, count: int) -> list[int]:
    """What a bare NOTIFY takes from before it is sent until another connection has heard it, in nanoseconds."""
    sender, hearer = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    took: list[int] = []
    await hearer.add_listener("bench", lambda *heard: took.append(time.monotonic_ns() - int(str(heard[3]))))
    loop, begin = asyncio.get_running_loop(), asyncio.get_running_loop().time()
    for moment in poisson(rate, 2 * count / rate + 1, 0)[:count]:
        await asyncio.sleep(begin + moment - loop.time())
        await sender.execute(f"NOTIFY bench, '{time.monotonic_ns()}'")
    await asyncio.sleep(SETTLE_SECONDS)
    await hearer.close()
    await sender.close()
    return took


async def work(task: dict[str, Any], ready: Ready, stop: asyncio.Event) -> None:
    """The service of `task`; once as many machines are connected as it says, its loads one after the other.

    Says the port it listens on, then what it saw.
    """
    many_files()
    settings = load_settings(task["overrides"], data_dir=Path(task["data_dir"]))
    superuser = await asyncpg.connect(task["superuser"])
    gc.freeze()  # as `lablink serve` does
    gc.set_threshold(COLLECT_AFTER)
    with listening(0) as listener:
        server = new_server(settings)
        serving = asyncio.create_task(server.serve([listener]))
        service = await _ready(server)
        inside = Inside(service, superuser, task)
        ready(await _measured(task, inside, service, lambda: ready(listener.getsockname()[1])))
        await stop.wait()
        await superuser.close()
        server.should_exit = True
        await serving


async def _ready(server: Server) -> Service:
    """The service, once it hears of changes."""
    await becomes(lambda: server.started, ARRIVE_SECONDS)
    assert isinstance(server.config.app, FastAPI)
    service: Service = server.config.app.state.service
    await service.feed.listening.wait()
    await service.sweeper.in_contact.wait()
    return service


async def _measured(
    task: dict[str, Any], inside: Inside, service: Service, open_doors: Callable[[], None]
) -> dict[str, Any]:
    gc.collect()
    before = resident()
    open_doors()
    await becomes(lambda: service.hub.machines >= task["machines"], ARRIVE_SECONDS)
    await asyncio.sleep(SETTLE_SECONDS)
    gc.collect()
    seen: dict[str, Any] = {"bytes": resident() - before}
    if task["idle"]:
        await asyncio.sleep(task["idle"])  # all have said hello just now, which they do not for the rest of their lives
        seen["idle"] = await inside.idle(task["idle"])
    await inside.crowds(WARM_UP, min(WARM_UP, task["crowds"][1]), 5)
    seen["bare"] = await round_trips(task["superuser"], *task["bare"])
    seen["slices"] = await inside.slices(*task["slices"])
    seen["crowds"] = await inside.crowds(*task["crowds"])
    return seen


if __name__ == "__main__":
    be_worker(work)

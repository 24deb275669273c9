"""The naive way with as many machines as it bears: all hear every row that changes, and look whether it is theirs.

A machine is a connection that listens and does nothing else, so it does less than the guide's.
"""

import asyncio
import json
import time
from contextlib import AsyncExitStack
from typing import Any

import asyncpg

from tests.bench.load import Answered, at_once, at_random
from tests.bench.options import CONNECTIONS
from tests.bench.process import many_files
from tests.bench.sides.guide import GIVE_BACK_ALL, LOOK, TAKE
from tests.bench.sides.inside import SETTLE_SECONDS
from tests.bench.workers import Ready, be_worker

AT_ONCE = 32


async def listen(task: dict[str, Any], ready: Ready, stop: asyncio.Event) -> dict[str, Any]:
    """The machines of `task` until told to stop; returns when each heard of which request, as LabLink's do."""
    many_files()
    heard: dict[int, int] = {}
    room = asyncio.Semaphore(AT_ONCE)

    async def connect(number: int) -> "asyncpg.Connection[asyncpg.Record]":
        hostname = f"vm-{number}"

        def notified(_connection: object, _pid: int, _channel: str, payload: object) -> None:
            row = json.loads(str(payload))
            if row["hostname"] == hostname and row["email"]:
                heard.setdefault(int(row["email"]), time.monotonic_ns())

        async with room:
            connection = await asyncpg.connect(task["dsn"])
            await connection.add_listener("vm_updates", notified)
        return connection

    connections = await asyncio.gather(*(connect(number) for number in task["numbers"]))
    ready(len(connections))
    await stop.wait()
    for connection in connections:
        connection.terminate()
    return {"leases": [(number, 0, at, at) for number, at in heard.items()]}


async def ask(task: dict[str, Any], ready: Ready, stop: asyncio.Event) -> None:
    """People who ask for these machines; says what they saw."""
    async with AsyncExitStack() as opened:
        pool = await opened.enter_async_context(asyncpg.create_pool(task["dsn"], max_size=CONNECTIONS))
        numbers = iter(range(1, 1_000_000))

        async def one() -> Answered:
            number, sent = next(numbers), time.monotonic_ns()
            async with pool.acquire() as connection:
                hostname = await connection.fetchval(LOOK)
                await connection.execute(TAKE, hostname, str(number))
            return number, 0, sent, time.monotonic_ns()

        seen: dict[str, Any] = {}
        for name, load, arguments in (("slices", at_random, task["slices"]), ("crowds", at_once, task["crowds"])):
            *how, rounds = arguments
            asked = []
            for _ in range(rounds):
                asked.append(await load(one, *how))
                await asyncio.sleep(SETTLE_SECONDS)
                await pool.execute(GIVE_BACK_ALL)
            seen[name] = {"asked": asked, "cpu": {}}
        ready(seen)
        await stop.wait()


async def work(task: dict[str, Any], ready: Ready, stop: asyncio.Event) -> Any:
    """The machines, or the people."""
    return await (listen if "numbers" in task else ask)(task, ready, stop)


if __name__ == "__main__":
    be_worker(work)

"""Times an admin's UPDATE of a whole fleet while machines listen, beside a trigger that tells all of them every row."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from client.network import Connection
from tests.bench.figures import Section, Value
from tests.bench.ground import Ground
from tests.bench.options import Options, Progress

LISTENERS = 20
MACHINES = 10_000
AIM_SECONDS = 1.0
CHANNEL, END = "vm_updates", "end of the bench's change"
FAIL = "UPDATE vms SET status = 'failed', reason = 'bench'"
NAIVE_FAIL = "UPDATE vms SET status = 'failed', updated_at = now()"
FREE = "UPDATE vms SET status = 'available'"


@dataclass(slots=True)
class Listener:
    """What one listener has heard of a change, until its end."""

    told: int = 0
    size: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def heard(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        """One notification."""
        if payload == END:
            return self.ended.set()
        self.told += 1
        self.size += len(str(payload).encode())


@dataclass(frozen=True, slots=True)
class Change:
    """One UPDATE: how long it and its commit took, and when the last listener had heard all; what each heard."""

    seconds: float
    heard_seconds: float
    told: int
    size: int


async def measure(own: Ground, options: Options, progress: Progress) -> list[Section]:
    """The section about a fleet that fails and is made available again, on both sides."""
    hosts = min(MACHINES, max(options.sizes))
    section = Section(f"UPDATE of {hosts:,} machines, {LISTENERS} listeners")
    await own.clone("bench_bulk")
    await own.fill("bench_bulk", hosts)
    await own.naive("bench_naive_bulk", hosts)
    async with listened(own, "bench_bulk") as mine, listened(own, "bench_naive_bulk") as theirs:
        for what, update, naive in (("failed", FAIL, NAIVE_FAIL), ("available", FREE, FREE)):
            ours, beside = await _change(*mine, update), await _change(*theirs, naive)
            section.values += _values(what, ours, beside)
            progress(0.5)
    return [section]


def _values(what: str, ours: Change, beside: Change) -> list[Value]:
    return [
        Value(f"marked {what}", ours.seconds, beside.seconds, "s", AIM_SECONDS),
        Value(f"marked {what}: until all have heard", ours.heard_seconds, beside.heard_seconds, "s"),
        Value(f"marked {what}: notifications to each", ours.told, beside.told),
        Value(f"marked {what}: in kB", ours.size / 1000, beside.size / 1000),
    ]


@asynccontextmanager
async def listened(own: Ground, database: str) -> AsyncIterator[tuple[Connection, list[Listener]]]:
    """The owner's connection to a database, and those who listen to it."""
    async with AsyncExitStack() as opened:
        owner, *others = await asyncio.gather(*(own.connect("lablink", database) for _ in range(1 + LISTENERS)))
        listeners = []
        for connection in (owner, *others):
            opened.push_async_callback(connection.close)
        for connection in others:
            listeners.append(Listener())
            await connection.add_listener(CHANNEL, listeners[-1].heard)
        yield owner, listeners


async def _change(owner: Connection, listeners: list[Listener], update: str) -> Change:
    for listener in listeners:
        listener.told = listener.size = 0
        listener.ended.clear()
    began = time.perf_counter()
    await owner.execute(update)
    seconds = time.perf_counter() - began
    await owner.execute("SELECT pg_notify($1, $2)", CHANNEL, END)
    await asyncio.gather(*(listener.ended.wait() for listener in listeners))
    return Change(seconds, time.perf_counter() - began, listeners[0].told, listeners[0].size)

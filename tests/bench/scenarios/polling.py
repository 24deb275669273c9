"""Times how soon a machine knows of a change that it is told of, and of one that it asks for every second."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from client.network import Connection
from tests.bench.cores import server_seconds
from tests.bench.figures import Row, Section, Value, figure
from tests.bench.ground import Ground
from tests.bench.options import Options, Progress

DATABASE = "bench_polling"
MACHINES = 30
PERIOD_SECONDS = 0.5
BETWEEN_SECONDS = 0.01
SEED = 1
MINE = "SELECT status FROM vms WHERE id = $1"
TAKE = "UPDATE vms SET status = 'in-use' WHERE id = $1"


@dataclass(slots=True)
class Machine:
    """One machine; `changed` and `knew` are moments in nanoseconds."""

    id: int
    connection: Connection
    changed: int = 0
    knew: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def notified(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        """Reads what everybody is told, as the naive machine does."""
        row = json.loads(str(payload))
        if row["id"] == self.id and row["status"] == "in-use":
            self.knows()

    async def poll(self) -> None:
        """Ask until it is known, first at any moment of a period."""
        await asyncio.sleep(random.random() * PERIOD_SECONDS)
        while True:
            if await self.connection.fetchval(MINE, self.id) == "in-use":
                return self.knows()
            await asyncio.sleep(PERIOD_SECONDS)

    def knows(self) -> None:
        """It knows, since this moment."""
        if not self.knew.done():
            self.knew.set_result(time.perf_counter_ns())


async def measure(own: Ground, _options: Options, progress: Progress) -> list[Section]:
    """The section about machines that ask: the same changes, first told, then asked for."""
    title = f"{MACHINES} machines that are told, and that ask every {PERIOD_SECONDS:g} s"
    section = Section(title, ours="NOTIFY", beside="polling")
    sides = []
    for begin in (_listen, _ask):
        async with _machines(own) as (owner, machines):
            polls = await begin(machines)
            sides.append(await _changes(own, owner, machines))
            await asyncio.gather(*polls)
        progress(0.5)
    (told, hearing), (asked, asking) = sides
    section.rows.append(Row("changed → its machine knows", figure(told), figure(asked)))
    section.values.append(Value("PostgreSQL's processor time while nothing happens", hearing, asking, "ms/s"))
    return [section]


@asynccontextmanager
async def _machines(own: Ground) -> AsyncIterator[tuple[Connection, list[Machine]]]:
    """Naive machines on a fresh database, and its owner."""
    await own.naive(DATABASE, MACHINES)
    async with AsyncExitStack() as opened:
        connections = []
        for _ in range(1 + MACHINES):
            connections.append(await own.connect("lablink", DATABASE))
            opened.push_async_callback(connections[-1].close)
        owner, *others = connections
        yield owner, [Machine(number, connection) for number, connection in enumerate(others, start=1)]


async def _listen(machines: list[Machine]) -> list[Awaitable[None]]:
    for machine in machines:
        await machine.connection.add_listener("vm_updates", machine.notified)
    return []


async def _ask(machines: list[Machine]) -> list[Awaitable[None]]:
    return [asyncio.create_task(machine.poll()) for machine in machines]


async def _changes(own: Ground, owner: Connection, machines: list[Machine]) -> tuple[list[int], float]:
    """How long it took until each machine knew of its change, and the idle server's milliseconds a second before."""
    before = server_seconds(own.server.process.pid)
    await asyncio.sleep(PERIOD_SECONDS)
    idle = 1000 * (server_seconds(own.server.process.pid) - before) / PERIOD_SECONDS
    for machine in random.Random(SEED).sample(machines, len(machines)):
        machine.changed = time.perf_counter_ns()
        await owner.execute(TAKE, machine.id)
        await asyncio.sleep(BETWEEN_SECONDS)
    return [await machine.knew - machine.changed for machine in machines], idle

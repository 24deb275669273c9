"""The naive side of the comparison: the guide's table and trigger, machines that read every row, SELECT-then-UPDATE."""

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from tests.bench.ground import Ground
from tests.bench.options import started
from tests.bench.sides.ours import MACHINES_A_PROCESS
from tests.bench.sides.trips import Trip
from tests.bench.visits import Asked
from tests.bench.workers import Worker, dealt, worker, workers

DATABASE = "bench_naive"
COMMITS = """
    SELECT x, (extract(epoch FROM pg_xact_commit_timestamp(x::xid)) * 1000000000)::bigint AS moment
    FROM unnest($1::text[]) x
"""


@dataclass(frozen=True, slots=True)
class Naive:
    """A running naive system."""

    ground: Ground
    http: httpx.AsyncClient
    machines: list[Worker]
    path: str = "/api/request_vm"

    async def keep(self, answer: httpx.Response) -> tuple[str, str]:
        """The machine, and the transaction that it was taken in."""
        given = answer.json()
        return given["hostname"], given["transaction"]

    async def give_back(self, answer: httpx.Response) -> None:
        """The machine is free again."""
        await self.http.post(f"/api/release/{answer.json()['hostname']}")

    async def trips(self, asked: Sequence[Asked]) -> list[Trip]:
        """What became of the requests. The machines stop."""
        ran: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for machine in self.machines:
            for woke, output in await machine.finish():
                if told := started(output):
                    ran[told[0]].append((told[1], woke))
        superuser = await self.ground.connect("postgres", DATABASE)
        try:
            rows = await superuser.fetch(COMMITS, [each.key for each in asked if each.key])
        finally:
            await superuser.close()
        commits = {row["x"]: row["moment"] for row in rows}
        trips = []
        for each in asked:
            mine = sorted(ran[each.number])
            steps = {"woke": mine[0][1]} if mine else {}
            trips.append(Trip(each, each.hostname, commits.get(each.key), [moment for moment, _ in mine], steps))
        return trips


@asynccontextmanager
async def service(own: Ground, database: str, hosts: int) -> AsyncIterator[int]:
    """The naive service alone, on a database of that name with so many free machines; the port it listens on."""
    await own.naive(database, hosts)
    task = {"dsn": own.dsn("lablink", database)}
    async with worker("tests.bench.sides.naive_service", task, own.directory / "naive.log") as running:
        yield await running.ready()


@asynccontextmanager
async def naive(own: Ground, clients: int) -> AsyncIterator[Naive]:
    """A naive system with that many machines, all of them available."""
    log, directory = own.directory / "naive.log", own.directory / "naive"
    directory.mkdir()
    groups = dealt([f"vm-{n + 1}" for n in range(clients)], MACHINES_A_PROCESS)
    dsn = own.dsn("lablink", DATABASE)
    tasks = [{"dsn": dsn, "directory": str(directory), "hostnames": group} for group in groups]
    async with (
        service(own, DATABASE, clients) as port,
        workers("tests.bench.sides.naive_fleet", tasks, log) as machines,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http,
    ):
        yield Naive(own, http, machines)

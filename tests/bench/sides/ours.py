"""LabLink's side of the comparison: the service that `lablink serve` is, its clients, and people who use its API."""

import asyncio
import hashlib
import json
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

import asyncpg
import httpx

from allocator.bootstrap import DATABASE
from tests.bench.ground import Ground
from tests.bench.options import PROGRAM, started
from tests.bench.sides.fleet import Steps
from tests.bench.sides.serving import serving
from tests.bench.sides.trips import Trip
from tests.bench.visits import Asked
from tests.bench.workers import Worker, dealt, workers

START_LIMIT_SECONDS = 10.0
MACHINES_A_PROCESS = 50
RECORDS = """
    SELECT l.id::text, l.hostname, l.epoch, l.output, (
        SELECT (extract(epoch FROM pg_xact_commit_timestamp(e.xmin)) * 1000000000)::bigint
        FROM events e WHERE e.lease_id = l.id AND e.kind = 'vm.in-use') AS committed
    FROM leases l
"""


@dataclass(slots=True)
class Ours:
    """A running LabLink."""

    ground: Ground
    http: httpx.AsyncClient
    machines: list[Worker]
    path: str = "/api/v1/leases"
    active: dict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))

    async def keep(self, answer: httpx.Response) -> tuple[str | None, str]:
        """The machine and the lease, once that is active."""
        lease = answer.json()
        with suppress(TimeoutError):
            async with asyncio.timeout(START_LIMIT_SECONDS):
                await self.active[lease["id"]].wait()
        return lease["hostname"], lease["id"]

    async def give_back(self, answer: httpx.Response) -> None:
        """The lease ends."""
        lease = answer.json()
        await self.http.delete(f"/api/v1/leases/{lease['id']}", headers={"Authorization": f"Bearer {lease['token']}"})

    def notified(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        """A lease changed: whoever waits for it to be active goes on."""
        for hint in json.loads(str(payload)):
            if hint["status"] in ("active", "failed"):
                self.active[hint["id"]].set()

    async def trips(self, asked: Sequence[Asked]) -> list[Trip]:
        """What became of the requests. The machines stop."""
        diaries: dict[str, dict[str, Steps]] = {}
        for machine in self.machines:
            diaries |= await machine.finish()
        superuser = await self.ground.connect("postgres", DATABASE)
        try:
            rows = {row["id"]: row for row in await superuser.fetch(RECORDS)}
        finally:
            await superuser.close()
        return [_trip(each, rows.get(each.key), diaries) for each in asked]

    async def broken_rules(self) -> int:
        """How many of LabLink's invariants do not hold."""
        owner = await self.ground.connect("lablink", DATABASE)
        try:
            return len(await owner.fetch("SELECT * FROM broken_invariants()"))
        finally:
            await owner.close()


def _trip(asked: Asked, lease: "asyncpg.Record | None", diaries: dict[str, dict[str, Steps]]) -> Trip:
    """One trip. A command whose lease ended before its output was reported started when its client says."""
    if lease is None:
        return Trip(asked, None, None, ())
    steps = diaries.get(lease["hostname"], {}).get(str(lease["epoch"]), {})
    told = started(lease["output"] or "")
    moment = told[1] if told and told[0] == asked.number else steps.get("started")
    return Trip(asked, lease["hostname"], lease["committed"], () if moment is None else (moment,), steps)


@asynccontextmanager
async def ours(own: Ground, clients: int) -> AsyncIterator[Ours]:
    """A LabLink with that many machines, all of them available."""
    await own.clone(DATABASE)
    async with AsyncExitStack() as opened:
        service = await opened.enter_async_context(serving(own, f"pool.programs=[{PROGRAM}]"))
        tasks = _tasks(own, service.url, await _invite(own, clients))
        log = own.directory / "fleet.log"
        machines = await opened.enter_async_context(workers("tests.bench.sides.fleet", tasks, log))
        http = await opened.enter_async_context(httpx.AsyncClient(base_url=service.url, timeout=30))
        system = Ours(own, http, machines)
        owner = await own.connect("lablink", DATABASE)
        opened.push_async_callback(owner.close)
        await owner.add_listener("lease_updates", system.notified)
        yield system


def _tasks(own: Ground, url: str, tokens: dict[str, str]) -> list[dict[str, object]]:
    """What each process of machines is told."""
    directory = str(own.directory / "vms")
    groups = dealt(list(tokens), MACHINES_A_PROCESS)
    return [{"url": url, "directory": directory, "tokens": {name: tokens[name] for name in group}} for group in groups]


async def _invite(own: Ground, clients: int) -> dict[str, str]:
    """A join token for every machine, as an admin makes them."""
    tokens = {f"vm-{n + 1}": secrets.token_urlsafe(32) for n in range(clients)}
    owner = await own.connect("lablink", DATABASE)
    try:
        for hostname, token in tokens.items():
            digest = hashlib.sha256(token.encode()).digest()
            await owner.execute("SELECT invite_vm($1, 'default', $2, 600)", hostname, digest)
    finally:
        await owner.close()
    return tokens

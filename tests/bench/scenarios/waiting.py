"""Thousands who wait with their pages open, or one who is passed over, and what that costs whoever claims."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from client.network import Connection
from tests.bench.cores import server_seconds
from tests.bench.figures import Row, Section, Value, figure, times
from tests.bench.ground import Ground
from tests.bench.load import at_moments, poisson
from tests.bench.options import Options, Progress
from tests.bench.sides.pages import browse
from tests.bench.sides.serving import Served, serving
from tests.bench.workers import worker

DATABASE, USUAL, BESIDE = "bench_waiting", "default", "beside"
CLAIMS_A_SECOND, SERVED_A_SECOND = 20.0, 10.0
AIM = 1.5
WARM_UP = 20
READY_SECONDS = 120.0
QUIET, PASSED = "nobody waits", "one is passed over"
STILL, MOVING = "all wait", "the queue moves"

CROWD = """
    INSERT INTO pools (name, programs) VALUES ('crowded', '{echo}'), ('beside', '{echo}');
    UPDATE pools SET claim_seconds = 86400;
    UPDATE vms SET pool = 'crowded', status = 'cleaning', epoch = 1 WHERE hostname = 'vm-1';
    UPDATE vms SET pool = 'beside' WHERE hostname <> 'vm-1' AND id % 3 = 0;
    INSERT INTO leases (email, status, pool, kind, needs_line, passed_over, trouble, deadline, token_sha256)
    VALUES ('passed@bench.test', 'queued', 'beside', 'desktop', true, true, 'no-line', now() + interval '1 day',
            sha256('passed'));
    INSERT INTO events (actor, kind, lease_id) SELECT 'web', 'lease.queued', id FROM leases;
"""
WAIT = """
    INSERT INTO leases (email, status, pool, kind, command, crd_command, deadline, token_sha256)
    SELECT format('w%s-%s@bench.test', $1::text, n), 'queued', 'crowded', 'job', '{"argv": ["echo"]}', 'echo',
           now() + interval '1 day', sha256(convert_to(format('%s-%s', $1::text, n), 'UTF8'))
    FROM generate_series(1, $2::integer) AS n RETURNING id::text
"""
CLEANED = "UPDATE vms SET status = 'available', cleaned_epoch = epoch WHERE hostname = 'vm-1'"
SERVE = "SELECT serve_queue('crowded')"
END = "SELECT end_lease(lease_id) FROM vms WHERE hostname = 'vm-1'"


@dataclass(slots=True)
class Phase:
    """What claims and servings took, in nanoseconds, and shares of a core."""

    claims: list[int] = field(default_factory=list)
    served: list[int] = field(default_factory=list)
    refused: int = 0
    allocator: float = 0.0
    postgres: float = 0.0


@dataclass(slots=True)
class Crowded:
    """A service, a pool with one machine that goes from hand to hand, and whoever asks elsewhere."""

    own: Ground
    allocator: Served
    http: httpx.AsyncClient
    owner: Connection
    number: int = 0

    async def phase(self, seconds: float, *, moves: bool, pool: str = USUAL) -> Phase:
        """So many seconds of claims in another pool; where the queue moves, its head is served meanwhile."""
        phase, began = Phase(), time.monotonic()
        allocator, postgres = self.allocator.seconds, server_seconds(self.own.server.process.pid)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._claims(phase, seconds, pool))
            if moves:
                both.create_task(self._servings(phase, seconds))
        took = time.monotonic() - began
        phase.allocator = (self.allocator.seconds - allocator) / took
        phase.postgres = (server_seconds(self.own.server.process.pid) - postgres) / took
        return phase

    async def _claims(self, phase: Phase, seconds: float, pool: str) -> None:
        moments = poisson(CLAIMS_A_SECOND, seconds, 0)
        for status, took in await at_moments(moments, lambda _number, _late: self._claim(pool)):
            phase.claims.append(took)
            phase.refused += status != 201

    async def _claim(self, pool: str) -> tuple[int, int]:
        self.number += 1
        asked = {"email": f"claim-{self.number}@bench.test", "crd_command": "echo", "pool": pool}
        began = time.perf_counter_ns()
        answer = await self.http.post("/api/v1/leases", json=asked)
        return answer.status_code, time.perf_counter_ns() - began

    async def _servings(self, phase: Phase, seconds: float) -> None:
        """The machine is clean, and the head of the queue has it; then it is given back, and one more waits."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for moment in poisson(SERVED_A_SECOND, seconds, 1):
            await asyncio.sleep(begin + moment - loop.time())
            self.number += 1
            await self.owner.fetch(WAIT, str(self.number), 1)
            began = time.perf_counter_ns()
            async with self.owner.transaction():
                await self.owner.execute(CLEANED)
                await self.owner.execute(SERVE)
            phase.served.append(time.perf_counter_ns() - began)
            await self.owner.execute(END)


async def measure(own: Ground, options: Options, progress: Progress) -> list[Section]:
    """The section about it: the same claims where nobody waits, beside who is passed over, and while many wait."""
    async with _crowded(own, options) as crowded:
        await crowded.phase(WARM_UP / CLAIMS_A_SECOND, moves=True)
        phases = {QUIET: await crowded.phase(options.seconds, moves=True)}
        phases[PASSED] = await crowded.phase(options.seconds, moves=False, pool=BESIDE)
        progress(0.2)
        leases = [row["id"] for row in await crowded.owner.fetch(WAIT, "0", options.waiting)]
        await crowded.owner.execute("ANALYZE leases")
        pages = [(lease, f"0-{n}") for n, lease in enumerate(leases, 1)]
        task = {"port": crowded.allocator.port, "pages": pages}
        async with worker(browse.__module__, task, own.directory / "pages.log") as browser:
            opened = await browser.word(READY_SECONDS)
            progress(0.4)
            phases[STILL] = await crowded.phase(options.seconds, moves=False)
            progress(0.2)
            phases[MOVING] = await crowded.phase(options.seconds, moves=True)
            progress(0.2)
            seen = await browser.finish()
    return [_section(phases, opened, seen)]


@asynccontextmanager
async def _crowded(own: Ground, options: Options) -> AsyncIterator[Crowded]:
    """The service, with as many free machines as are asked for."""
    await own.clone(DATABASE)
    await own.fill(DATABASE, int(6 * CLAIMS_A_SECOND * options.seconds) + 150)
    superuser, owner = await asyncio.gather(own.connect("postgres", DATABASE), own.connect("lablink", DATABASE))
    try:
        await superuser.execute(f"SET session_replication_role = replica; {CROWD}")
        settings = f"database.name={DATABASE}", "pool.programs=[echo]", "log.level=warning"
        async with serving(own, *settings) as allocator, httpx.AsyncClient(base_url=allocator.url, timeout=30) as http:
            yield Crowded(own, allocator, http, owner)
    finally:
        await asyncio.gather(superuser.close(), owner.close())


def _section(phases: dict[str, Phase], opened: dict[str, Any], seen: dict[str, Any]) -> Section:
    quiet = phases[QUIET]
    section = Section(f"{opened['open']:,} wait in one pool, with their pages open", beside=QUIET)
    section.rows += [
        Row(f"claim, {name}", figure(phases[name].claims), figure(quiet.claims)) for name in (PASSED, STILL, MOVING)
    ]
    section.rows.append(Row("the head is served", figure(phases[MOVING].served), figure(quiet.served)))
    for row in section.rows:
        section.values += times(row.what, row.ours, row.beside, (AIM, AIM))
    section.values.append(Value("claims refused", sum(phase.refused for phase in phases.values()), aim=0))
    section.values.append(Value("pages cut off", seen["cut"], aim=0))
    section.values.append(Value("all pages were open after", opened["seconds"], unit="s"))
    for name in (STILL, MOVING):
        phase = phases[name]
        section.values.append(Value(f"allocator, {name}", 100 * phase.allocator, 100 * quiet.allocator, "%"))
        section.values.append(Value(f"PostgreSQL, {name}", 100 * phase.postgres, 100 * quiet.postgres, "%"))
    section.values.append(
        Value("news for a page, a minute", 60 * seen["news"] / seen["seconds"] / max(1, opened["open"]))
    )
    section.remarks.append("% are of one core.")
    return section

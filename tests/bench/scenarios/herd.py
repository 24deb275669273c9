"""Kills and restarts the one allocator of a fleet: how long until every machine is back, and who waits meanwhile."""

import asyncio
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from client.network import Connection
from tests.bench.cores import seconds_of
from tests.bench.figures import Row, Section, Value, figure
from tests.bench.ground import Ground
from tests.bench.load import poisson
from tests.bench.options import Options, Progress
from tests.bench.process import becomes
from tests.bench.sides.serving import Served, serving
from tests.bench.sides.swarm_fleet import Fleet, new_fleet

HURRY_SECONDS = 10.0
HURRY_A_SECOND = 1_500
"""How many machines try again in a second when they are asked to hurry."""

RATE = 10.0
REQUEST_MS = (1000.0, 1000.0)
MOST_SECONDS = 75.0
CALM_SECONDS = 0.7
"""For how long people come before anything happens, and afterwards."""

BACK = "SELECT count(*) = $1 FROM vm_heartbeats WHERE seen_at BETWEEN $2 AND now()"


@dataclass(slots=True)
class Herd:
    """One restart. `moment` is when the allocator was told, or made, to end; `ready` when it was there again."""

    title: str
    sign: signal.Signals
    aim: float
    moment: int = 0
    ready: int = 0
    requests: list[tuple[int, int, int]] | None = None
    """When each was sent and answered, and the answer's status; 0 for none."""
    cpu: tuple[float, float] = (0.0, 0.0)


async def measure(own: Ground, options: Options, progress: Progress) -> list[Section]:
    """The sections: machines that are asked to hurry, machines that are not, and an allocator that stops in order."""
    spread = max(30.0, options.vms / 50)
    hurried = [Herd("killed; asked to hurry", signal.SIGKILL, HURRY_SECONDS)]
    usual = [Herd("killed; spread as usual", signal.SIGKILL, spread), Herd("told to stop", signal.SIGTERM, spread)]
    fleet = await new_fleet(own, "bench_herd", options.vms)
    sections = []
    rounds = [(hurried, options.vms / HURRY_A_SECOND), (usual, None)][: options.turns]
    for herds, hurry in rounds:
        sections += await _restarts(fleet, herds, hurry)
        progress(1 / len(rounds))
    return sections


async def _restarts(fleet: Fleet, herds: Sequence[Herd], hurry: float | None) -> list[Section]:
    """Each of the restarts, one after the other."""
    async with serving(fleet.own, *fleet.settings) as allocator, fleet.living(allocator.url, hurry=hurry) as machines:
        superuser = await fleet.own.connect("postgres", fleet.database)
        try:
            for herd in herds:
                await _restart(fleet, allocator, superuser, herd)
        finally:
            await superuser.close()
        seen = [await machine.finish() for machine in machines]
    return [_section(herd, fleet.size, seen) for herd in herds]


async def _restart(fleet: Fleet, allocator: Served, superuser: Connection, herd: Herd) -> None:
    """End the allocator and start it again; returns when every machine has said hello to the new one."""
    stop = asyncio.Event()
    people = asyncio.create_task(_people(allocator.url, stop))
    await asyncio.sleep(CALM_SECONDS)
    postgres = seconds_of(fleet.own.server.process.pid)
    when = await superuser.fetchval("SELECT clock_timestamp()")
    herd.moment = time.monotonic_ns()
    await allocator.end(herd.sign)
    await allocator.start()
    herd.ready = time.monotonic_ns()
    await becomes(lambda: superuser.fetchval(BACK, fleet.size, when), MOST_SECONDS)
    herd.cpu = allocator.seconds, seconds_of(fleet.own.server.process.pid) - postgres
    await asyncio.sleep(CALM_SECONDS)
    stop.set()
    herd.requests = await people


async def _people(url: str, stop: asyncio.Event) -> list[tuple[int, int, int]]:
    """People who ask for a machine, a few a second, answered or not; returns when and what they heard."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as http, asyncio.TaskGroup() as visits:
        asked, begin = [], asyncio.get_running_loop().time()
        for number, moment in enumerate(poisson(RATE, 2 * MOST_SECONDS, 0)):
            if await _stopped(stop, begin + moment - asyncio.get_running_loop().time()):
                break
            asked.append(visits.create_task(_ask(http, number)))
    return [visit.result() for visit in asked]


async def _stopped(stop: asyncio.Event, seconds: float) -> bool:
    await asyncio.wait({waiting := asyncio.create_task(stop.wait())}, timeout=max(0.0, seconds))
    waiting.cancel()
    return stop.is_set()


async def _ask(http: httpx.AsyncClient, number: int) -> tuple[int, int, int]:
    sent = time.monotonic_ns()
    request = {"email": f"{time.monotonic_ns()}-{number}@bench.test", "crd_command": "echo"}
    try:
        status = (await http.post("/api/v1/leases", json=request)).status_code
    except httpx.TransportError:
        status = 0
    return sent, time.monotonic_ns(), status


def _section(herd: Herd, size: int, seen: Sequence[dict[str, Any]]) -> Section:
    """What this restart was like. Machines count from the moment at which they lost their allocator."""
    section = Section(f"{size:,} machines, {herd.title}")
    back = [_after(links, herd.moment) for machines in seen for links in machines["met"]]
    came = [moment - herd.moment for moment in back if moment]
    slowest = max(came, default=0) / 1e9 if len(came) == len(back) else None
    section.rows.append(Row("back with its state", figure(came)))
    meanwhile = [each for each in herd.requests or () if each[0] > herd.ready and each[2] == 201]
    calm = [each for each in herd.requests or () if each[1] < herd.moment]
    section.rows.append(Row("POST before", figure(end - sent for sent, end, _ in calm)))
    section.rows.append(Row("POST while they come", figure(end - sent for sent, end, _ in meanwhile), None, REQUEST_MS))
    wrong = [each for each in herd.requests or () if each[0] > herd.ready and each[2] != 201]
    section.values += [
        Value("the last one back", slowest, None, "s", herd.aim),
        Value("  … of which nobody listened", (herd.ready - herd.moment) / 1e9, None, "s"),
        Value("came back with another state", sum(machines["odd"] for machines in seen), aim=0),
        Value("requests refused once it was ready", len(wrong), aim=0),
        Value("processor time, allocator", herd.cpu[0], None, "s"),
        Value("  … PostgreSQL", herd.cpu[1], None, "s"),
        Value("  … machines, from the first", sum(machines["cpu"] for machines in seen), None, "s"),
    ]
    return section


def _after(links: Sequence[Sequence[int]], moment: int) -> int | None:
    """When a machine first had an answer after this moment."""
    return next((answered for _, answered in links if answered > moment), None)

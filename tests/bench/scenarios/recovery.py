"""Breaks one thing after another under connected machines: how long until it is noticed, and made good."""

import asyncio
import signal
import time
from functools import partial

from client.network import Connection
from tests.bench.figures import Row, Section, Value, figure
from tests.bench.ground import Ground
from tests.bench.options import Options, Progress
from tests.bench.process import becomes
from tests.bench.sides.killable import Killable, killable
from tests.bench.sides.swarm_fleet import Fleet, new_fleet
from tests.support.allocator import Allocator
from tests.support.balancer import balancing
from tests.support.front import front_of

HALF_OPEN_SECONDS, ANOTHER_SECONDS = 7.0, 2.0
SILENT_SECONDS = 9.0
SILENCED = 20
"""Machines whose links go silent, besides those that are served on."""

MOST = 1_000
"""Machines whose allocator is killed: the balancer is a process of this bench, which all they say goes through."""

TIMES = 4
HEARD_SECONDS = 1.0
BACK_SECONDS = 30.0
DEAFEN = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = 'lablink feed' AND datname = current_database()
"""
FAIL = "SELECT fail_vm('vm-' || $1)"
EPOCH = "SELECT epoch FROM vms WHERE hostname = 'vm-' || $1"


async def measure(own: Ground, options: Options, progress: Progress) -> list[Section]:
    """The section about what breaks."""
    served = min(options.vms, MOST)
    fleet = await new_fleet(own, "bench_recovery", served + SILENCED)
    section = Section("What breaks, and how long it takes")
    async with killable(fleet) as allocator, killable(fleet) as other:
        section.rows += await _silence(fleet, allocator, served)
        progress(0.5)
        section.rows += await _another(fleet, allocator, other, served)
        progress(0.5)
    for row, limit in ((section.rows[0], HALF_OPEN_SECONDS), (section.rows[-1], ANOTHER_SECONDS)):
        slowest = row.ours.max / 1000 if row.ours else None
        section.values.append(Value(f"{row.what}: the last", slowest, None, "s", limit))
    return [section]


async def _silence(fleet: Fleet, allocator: Killable, served: int) -> list[Row]:
    """Links that go silent without an end; meanwhile changes made in psql, with and without a listener killed."""
    numbers = range(served + 1, served + SILENCED + 1)
    async with front_of(allocator.url) as front, fleet.living(front.url, numbers) as silenced:
        front.stalls, moment = True, time.monotonic_ns()
        rows = await _changes(fleet, allocator, served)
        await asyncio.sleep(SILENT_SECONDS - (time.monotonic_ns() - moment) / 1e9)
        front.stalls = False
        front.cut()
        await becomes(partial(_serves, allocator, SILENCED), BACK_SECONDS)
        seen = [await machine.finish() for machine in silenced]
    lost = [noticed for machines in seen for links in machines["met"] for noticed, _ in links[1:]]
    return [Row("a link that went silent is given up", figure(each - moment for each in lost)), *rows]


async def _changes(fleet: Fleet, allocator: Killable, served: int) -> list[Row]:
    """A machine is failed by hand; the same when the connection that hears of it has just been killed."""
    superuser = await fleet.own.connect("postgres", fleet.database)
    async with fleet.living(allocator.url, range(1, min(served, 4 * TIMES) + 1)) as machines:
        usual = [await _fail(superuser, number) for number in range(1, TIMES + 1)]
        deaf = []
        for number in range(TIMES + 1, min(served, 2 * TIMES) + 1):
            began = time.monotonic_ns()
            await superuser.execute(DEAFEN)
            deaf.append((*(await _fail(superuser, number))[:2], began))
            await asyncio.sleep(HEARD_SECONDS)
        seen = [await machine.finish() for machine in machines]
    await superuser.close()
    heard = {(vm, epoch): moment for machines in seen for vm, epoch, moment in machines["states"]}
    rows = (("a change in psql → its machine", usual), ("  … the listening session just killed", deaf))
    return [Row(what, figure(heard[vm, epoch] - at for vm, epoch, at in changes)) for what, changes in rows]


async def _fail(superuser: Connection, number: int) -> tuple[int, int, int]:
    """Fail a machine. Returns it, its epoch, and when that was asked for."""
    began = time.monotonic_ns()
    await superuser.execute(FAIL, str(number))
    return number, await superuser.fetchval(EPOCH, str(number)), began


async def _another(fleet: Fleet, allocator: Killable, other: Killable, served: int) -> list[Row]:
    """One of two allocators is killed; its machines come to the other."""
    async with (
        balancing(Allocator(allocator.port), Allocator(other.port)) as balancer,
        fleet.living(balancer.url, range(1, served + 1)) as machines,
    ):
        moment = time.monotonic_ns()
        await allocator.end(signal.SIGKILL)
        await becomes(partial(_serves, other, served), BACK_SECONDS)
        seen = [await machine.finish() for machine in machines]
    came = [answered for machines in seen for links in machines["met"] for _, answered in links if answered > moment]
    return [Row(f"an allocator is killed, its {len(came)} machines at another", figure(each - moment for each in came))]


async def _serves(allocator: Killable, machines: int) -> bool:
    """Whether so many machines are connected to it."""
    return await Allocator(allocator.port).figure("lablink_hub_machines") >= machines

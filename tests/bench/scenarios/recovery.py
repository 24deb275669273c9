"""Breaks one thing after another under connected machines: how long until it is noticed, and made good."""

import asyncio
import signal
import time
from collections.abc import Sequence
from typing import Any

from allocator.sockets import SILENCE_SECONDS
from client.network import Connection
from tests.bench.figures import Row, Section, Value, figure
from tests.bench.ground import Ground
from tests.bench.options import Options, Progress
from tests.bench.process import becomes
from tests.bench.sides.readers import Page, reading
from tests.bench.sides.serving import Served, serving
from tests.bench.sides.swarm_fleet import Fleet, new_fleet
from tests.support.allocator import Allocator
from tests.support.balancer import balancing
from tests.support.front import Front, front_of

HALF_OPEN_SECONDS, ANOTHER_SECONDS = 7.0, 2.0
SILENT_SECONDS = 7.5
SILENCED = 20
"""Machines whose links go silent, besides those that are served on."""

MOST = 1_000
"""Machines whose allocator is killed: the balancer is a process of this bench, which all they say goes through."""

TIMES, MOVED = 4, 100
HEARD_SECONDS = 0.6
BACK_SECONDS = 30.0
DEAFEN = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = 'lablink feed' AND datname = current_database()
"""
MOVED_MS = 1_000.0
MAY_RESTART = "UPDATE pools SET programs = '{echo}', restart_on_move = true"
ASK = """
    SELECT lease_id FROM request_vm(
        gen_random_uuid() || '@example.org', 'job', '{"argv": ["echo"]}', NULL, '', sha256('t'), '\\x00')
"""
ON_A_MACHINE = "SELECT vm_id, epoch FROM leases WHERE id = $1"
FAIL = "SELECT fail_vm('vm-' || $1)"
EPOCH = "SELECT epoch FROM vms WHERE hostname = 'vm-' || $1"

Seen = Sequence[dict[str, Any]]
"""What processes of machines saw."""

Change = tuple[int, int, int]
"""A machine that was failed, its epoch, and when that was asked for."""


async def measure(own: Ground, options: Options, progress: Progress) -> list[Section]:
    """The section about what breaks. While some links are silent, an allocator dies and machines are failed."""
    served = min(options.vms, MOST)
    fleet = await new_fleet(own, "bench_recovery", served + SILENCED)
    async with (
        serving(own, *fleet.settings) as allocator,
        serving(own, *fleet.settings) as other,
        front_of(other.url) as front,
        fleet.living(front.url, range(served + 1, served + SILENCED + 1)) as silenced,
        balancing(Allocator(allocator.port), Allocator(other.port)) as balancer,
    ):
        front.stalls, silence = True, time.monotonic_ns()
        async with fleet.living(balancer.url, range(1, served + 1)) as machines, reading(balancer.port) as pages:
            kill = time.monotonic_ns()
            await allocator.end(signal.SIGKILL)
            await _come(other, served, silence)
            progress(0.2)
            changes = await _changes(fleet, served)
            moves = await _moves(fleet, served)
            progress(0.3)
            await _end_silence(front, silence)
            await _come(other, served + SILENCED)
            seen = [await each.finish() for each in machines]
            lost = [await each.finish() for each in silenced]
            progress(0.5)
    changed = [*_heard(seen, *changes), _begun(seen, moves)]
    return [_section(_noticed(lost, silence), changed, [_came(seen, kill), _live(pages, kill)])]


def _section(silent: Row, changes: list[Row], came: list[Row]) -> Section:
    section = Section("What breaks, and how long it takes", rows=[silent, *changes, *came])
    for row, limit in ((silent, HALF_OPEN_SECONDS), *((row, ANOTHER_SECONDS) for row in came)):
        slowest = row.ours.max / 1000 if row.ours else None
        section.values.append(Value(f"{row.what}: the last", slowest, None, "s", limit))
    return section


async def _come(allocator: Served, machines: int, silence: int | None = None) -> None:
    """Return when so many machines are connected to it, besides those that it does not yet know to be silent."""

    async def all_have() -> bool:
        silent = SILENCED if silence and time.monotonic_ns() - silence < 1e9 * SILENCE_SECONDS else 0
        return await Allocator(allocator.port).figure("lablink_hub_machines") >= machines + silent

    await becomes(all_have, BACK_SECONDS)


async def _changes(fleet: Fleet, served: int) -> tuple[list[Change], list[Change]]:
    """Machines are failed by hand; the same when the connection that hears of it has just been killed."""
    superuser = await fleet.own.connect("postgres", fleet.database)
    usual = [await _fail(superuser, number) for number in range(1, TIMES + 1)]
    deaf = []
    for number in range(TIMES + 1, min(served, 2 * TIMES) + 1):
        began = time.monotonic_ns()
        await superuser.execute(DEAFEN)
        deaf.append((*(await _fail(superuser, number))[:2], began))
        await asyncio.sleep(HEARD_SECONDS)
    await superuser.close()
    return usual, deaf


async def _moves(fleet: Fleet, served: int) -> list[Change]:
    """Machines fail while their lease's job runs. Of each spare: its number, epoch, and when the other one failed."""
    superuser = await fleet.own.connect("postgres", fleet.database)
    await superuser.execute(MAY_RESTART)
    moved = []
    for _ in range(min(MOVED, served // 4)):
        lease = await superuser.fetchval(ASK)
        before = await _working(superuser, lease)
        began = time.monotonic_ns()
        await superuser.execute(FAIL, str(before["vm_id"]))
        after = await _working(superuser, lease)
        moved.append((after["vm_id"], after["epoch"], began))
    await superuser.close()
    return moved


async def _working(superuser: Connection, lease: Any) -> Any:
    """The lease's machine and epoch, once its command has begun there."""

    async def works() -> bool:
        return bool(await superuser.fetchval("SELECT status = 'active' FROM leases WHERE id = $1", lease))

    await becomes(works, BACK_SECONDS)
    return await superuser.fetchrow(ON_A_MACHINE, lease)


async def _fail(superuser: Connection, number: int) -> Change:
    began = time.monotonic_ns()
    await superuser.execute(FAIL, str(number))
    return number, await superuser.fetchval(EPOCH, str(number)), began


async def _end_silence(front: Front, silence: int) -> None:
    """When all must have noticed. What has not is cut off, or it would wait on."""
    await asyncio.sleep(SILENT_SECONDS - (time.monotonic_ns() - silence) / 1e9)
    front.stalls = False
    front.cut()


def _noticed(seen: Seen, silence: int) -> Row:
    lost = [noticed for machines in seen for links in machines["met"] for noticed, _ in links[1:]]
    return Row("a link that went silent is given up", figure(each - silence for each in lost))


def _heard(seen: Seen, usual: list[Change], deaf: list[Change]) -> list[Row]:
    heard = {(vm, epoch): moment for machines in seen for vm, epoch, moment in machines["states"]}
    rows = (("a change in psql → its machine", usual), ("  … the listening session just killed", deaf))
    return [
        Row(what, figure(heard[vm, epoch] - at for vm, epoch, at in changes if (vm, epoch) in heard))
        for what, changes in rows
    ]


def _begun(seen: Seen, moves: list[Change]) -> Row:
    """These machines start no process: what comes next is what that takes."""
    had = {(vm, epoch): moment for machines in seen for vm, epoch, _, moment in machines["leases"]}
    begun = figure(had[vm, epoch] - at for vm, epoch, at in moves if (vm, epoch) in had)
    return Row("a machine fails → a spare has its command", begun, aim=(MOVED_MS, MOVED_MS))


def _came(seen: Seen, kill: int) -> Row:
    came = [answered for machines in seen for links in machines["met"] for _, answered in links if answered > kill]
    return Row(f"an allocator is killed, its {len(came)} machines at another", figure(each - kill for each in came))


def _live(pages: Sequence[Page], kill: int) -> Row:
    """Nothing, if one of them is not."""
    live = [moment for page in pages for moment in page.live if moment > kill]
    took = figure(each - kill for each in live) if all(page.is_live for page in pages) else None
    return Row("  … its open pages are live at another", took)

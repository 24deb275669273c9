"""Times a request on its way to the right machine, in fleets from ten to ten thousand, over the hub and direct."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

from allocator.local.installation import Installation
from tests.bench.figures import Row, Section, Value, figure, times
from tests.bench.ground import Ground
from tests.bench.options import Options, Progress
from tests.bench.sides.swarm_fleet import Fleet, new_fleet
from tests.bench.workers import Worker, worker, workers

RATE = 500.0
"""Requests a second, where the fleet is large enough: a machine takes up two leases a second at most."""

WAITING = 200
NAIVE_WORK = 20_000.0
"""Notifications a second that the naive side is asked to bear: each change goes to every machine."""

REQUESTS = 800
SEEN_SECONDS = 90.0
AIM, TIMES_BARE = (1.5, 5.0), (1.5, 3.0)
DELIVERED_A_SECOND, TIMES_NAIVE = 15_000, 200
KILOBYTES = 35.0


@dataclass(frozen=True, slots=True)
class Delivered:
    """Requests of one kind of load: nanoseconds until each was answered, heard of, known and taken up."""

    steps: tuple[list[int], list[int], list[int], list[int]]
    rates: list[float]
    """Requests a second of which machines knew, one a round."""
    lost: int
    cpu: dict[str, float]
    """Seconds of processor time a request."""

    @classmethod
    def of(cls, seen: dict[str, Any], leases: dict[tuple[int, int], Sequence[int]]) -> "Delivered":
        """What people saw, and when machines saw the same."""
        steps: tuple[list[int], ...] = ([], [], [], [])
        rates, lost, asked = list[float](), 0, 0
        for a_round in seen["asked"]:
            asked += len(a_round)
            trips = [(each, leases[each[0], each[1]]) for each in a_round if (each[0], each[1]) in leases]
            lost += len(a_round) - len(trips)
            for (_, _, sent, answered), moments in trips:
                for step, moment in zip(steps, (answered, *moments), strict=True):
                    step.append(moment - sent)
            if trips:
                took = max(moments[1] for _, moments in trips) - min(each[2] for each, _ in trips)
                rates.append(len(trips) / took * 1e9)
        cpu = {name: seconds / max(1, asked) for name, seconds in seen["cpu"].items()}
        return cls(steps, rates, lost, cpu)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Seen:
    """One fleet's figures."""

    size: int
    slices: Delivered
    crowds: Delivered
    rest: dict[str, Any]


def load_of(size: int, options: Options, rate: float = RATE) -> dict[str, Any]:
    """What is asked of a fleet of this size: so many a second in rounds, then so many that wait."""
    rate = min(rate, 2.0 * size)
    count = max(5, min(int(0.8 * size), int(rate * options.fleet_seconds)))
    crowd = max(5, min(int(0.8 * size), options.crowd))
    return {
        "slices": (rate, count, max(1, min(options.fleet_rounds, REQUESTS // count))),
        "crowds": (WAITING, crowd, max(1, min(options.fleet_rounds, 2 * REQUESTS // crowd))),
    }


async def measure(own: Ground, options: Options, progress: Progress) -> list[Section]:
    """The sections: delivery, the burst, and what a connected fleet costs."""
    hub = [size for size in options.fleets if size < options.vms] + [options.vms]
    direct = [size for size in options.directs if size <= options.vms]
    naive = [size for size in options.shared if size <= options.vms]
    share = 1 / (len(hub) + len(direct) + len(naive))
    seen: dict[str, list[Seen]] = {"hub": [], "direct": [], "naive": []}
    for way, sizes, see in (("naive", naive, _naive), ("direct", direct, _direct), ("hub", hub, _hub)):
        for size in sizes:
            seen[way].append(await see(own, size, options))
            progress(share)
    return [_delivery(**seen), _burst(**seen), _cost(seen["hub"])]


async def _hub(own: Ground, size: int, options: Options) -> Seen:
    fleet = await new_fleet(own, f"bench_hub_{size}", size)
    async with AsyncExitStack() as opened:
        idle = options.idle if size == options.vms else 0.0
        service = await opened.enter_async_context(_inside(fleet, load_of(size, options), machines=size, idle=idle))
        url = f"http://127.0.0.1:{await service.ready()}"
        return await _finish(size, service, await opened.enter_async_context(fleet.living(url)))


async def _direct(own: Ground, size: int, options: Options) -> Seen:
    fleet = await new_fleet(own, f"bench_direct_{size}", size, direct=True)
    load = load_of(size, options, RATE if size <= 100 else NAIVE_WORK / size)
    async with fleet.living("") as machines, _inside(fleet, load, machines=0, idle=0.0) as service:
        await service.ready()
        return await _finish(size, service, machines)


async def _naive(own: Ground, size: int, options: Options) -> Seen:
    database = f"bench_shared_{size}"
    await own.naive(database, size)
    dsn, log = own.dsn("lablink", database), own.directory / f"{database}.log"
    load = load_of(size, options, NAIVE_WORK / size)
    load["crowds"] = (WAITING, min(WAITING, load["crowds"][1]), 1)
    tasks = [{"dsn": dsn, "numbers": task["numbers"]} for task in Fleet(own, database, size, "").tasks("")]
    async with (
        workers("tests.bench.sides.swarm_naive", tasks, log) as machines,
        worker("tests.bench.sides.swarm_naive", load | {"dsn": dsn}, log) as people,
    ):
        return await _finish(size, people, machines)


@asynccontextmanager
async def _inside(fleet: Fleet, load: dict[str, Any], *, machines: int, idle: float) -> AsyncIterator[Worker]:
    """The allocator that is asked; it begins when so many machines are connected to its hub."""
    own = fleet.own
    Installation(own.directory, 1, own.server).write_settings()
    task = load | {
        "data_dir": str(own.directory),
        "overrides": fleet.settings,
        "superuser": own.dsn("postgres", fleet.database),
        "postgres": own.server.process.pid,
        "machines": machines,
        "idle": idle,
        "bare": (load["slices"][0], min(500, 2 * load["slices"][1])),
    }
    async with worker("tests.bench.sides.inside", task, own.directory / "inside.log") as service:
        yield service


async def _finish(size: int, people: Worker, machines: Sequence[Worker]) -> Seen:
    """What people and machines saw; all of them stop."""
    rest = await people.word(SEEN_SECONDS)
    leases: dict[tuple[int, int], Sequence[int]] = {}
    for machine in machines:
        leases |= {(vm, epoch): moments for vm, epoch, *moments in (await machine.finish())["leases"]}
    slices, crowds = (Delivered.of(rest.pop(name), leases) for name in ("slices", "crowds"))
    return Seen(size, slices, crowds, rest)


def _delivery(hub: list[Seen], direct: list[Seen], naive: list[Seen]) -> Section:
    section = Section(f"Delivery of {RATE:g} requests a second")
    beside = {seen.size: figure(seen.slices.steps[2]) for seen in naive}
    largest = hub[-1]
    for way, fleets in (("hub", hub), ("direct", direct)):
        for seen in fleets:
            aim = AIM if seen is largest else None
            what = f"{seen.size:,} machines, {way}: has it"
            section.rows.append(Row(what, figure(seen.slices.steps[2]), beside.get(seen.size), aim))
            section.rows.append(Row("  … has the command", figure(seen.slices.steps[3])))
    bare = figure(largest.rest["bare"])
    section.rows.append(Row("a bare NOTIFY's round trip", bare))
    section.values += times("has it : bare NOTIFY", figure(largest.slices.steps[2]), bare, TIMES_BARE)
    section.values.append(Value("requests of which no machine heard", _lost(hub) + _lost(direct), _lost(naive), aim=0))
    section.remarks += [
        "From the request inside the allocator until the machine's client has its orders, or its claim's answer.",
        "Beside it all machines listen to one channel, with the whole row, and fewer requests come.",
        "Transport and agent are the client's; no command runs, and no journal is written.",
    ]
    return section


def _burst(hub: list[Seen], direct: list[Seen], naive: list[Seen]) -> Section:
    section = Section(f"Delivery while {WAITING} people wait")
    beside = {seen.size: median(seen.crowds.rates) for seen in naive if seen.crowds.rates}
    for way, fleets in (("hub", hub), ("direct", direct)):
        for seen in fleets:
            aim = DELIVERED_A_SECOND if seen is hub[-1] else None
            ours = median(seen.crowds.rates) if seen.crowds.rates else 0.0
            what = f"{seen.size:,} machines, {way}"
            section.values.append(Value(what, ours, beside.get(seen.size), "/s", aim, more=True))
            if way == "hub" and seen.size == 1_000 and seen.size in beside:
                section.values.append(
                    Value("  … times the naive way's", ours / beside[seen.size], None, "×", TIMES_NAIVE, more=True)
                )
    section.rows += [Row(f"{seen.size:,} machines: has it", figure(seen.crowds.steps[2])) for seen in hub]
    section.remarks.append("From the first request of a round to the last machine that has its orders.")
    return section


def _cost(hub: list[Seen]) -> Section:
    section = Section("A fleet over the hub")
    for seen in hub:
        if seen.size >= 100:
            kilobytes = seen.rest["bytes"] / seen.size / 1024
            aim = KILOBYTES if seen.size >= 1_000 else None
            section.values.append(Value(f"{seen.size:,}: memory of the allocator a VM", kilobytes, None, "kB", aim))
        for name, share in seen.rest.get("idle", {}).items():
            section.values.append(Value(f"{seen.size:,} idle: {name}", 100 * share, None, "% of a core"))
        for name in ("allocator", "postgres"):
            cpu = 1000 * seen.slices.cpu[name]
            section.values.append(Value(f"{seen.size:,}: {name}, each request", cpu, None, "ms CPU"))
    section.remarks.append(
        "A request with all that follows: its machine's claim, and the report that the command runs."
    )
    return section


def _lost(fleets: Sequence[Seen]) -> int:
    return sum(each.lost for seen in fleets for each in (seen.slices, seen.crowds))

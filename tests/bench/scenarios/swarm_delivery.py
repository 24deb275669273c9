"""Times a request on its way to the right machine, in fleets from ten to ten thousand, over the hub and direct."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from allocator.local.installation import Installation
from tests.bench.figures import Row, Section, Value, figure, times
from tests.bench.ground import Ground
from tests.bench.options import Options, Progress
from tests.bench.sides.swarm_fleet import LISTENING, WORKING, Fleet, new_fleet
from tests.bench.workers import Worker, worker, workers

RATE = 500.0
"""Requests a second, for as long as machines are free."""

SHARE = 0.8
"""How many of the machines are asked for at most, before all are freed."""

WAITING = 200
SHARED_WORK = 20_000.0
"""Notifications a second where each change goes to every machine: in the naive way, and without the hub."""

LOAD_SECONDS, IDLE_SECONDS = 4.0, 10.0
REQUESTS = 800
SEEN_SECONDS = 120.0
AIM, TIMES_BARE = (1.5, 5.0), (1.5, 3.0)
DELIVERED_A_SECOND, TIMES_NAIVE, TIMES_NAIVE_AT = 15_000, 200, 1_000
KILOBYTES = 35.0


@dataclass(frozen=True, slots=True)
class Delivered:
    """Requests of one kind of load: nanoseconds until the right machine had each, and had its command."""

    had: list[int]
    command: list[int]
    rates: list[float]
    """Requests a second of which machines knew, one a round."""
    lost: int
    cpu: dict[str, float]
    """Seconds of processor time a request."""

    @property
    def rate(self) -> float:
        """Of the rounds' rates the middle one; 0 when no machine knew of anything."""
        return median(self.rates) if self.rates else 0.0

    @classmethod
    def of(cls, seen: dict[str, Any], leases: dict[tuple[int, int], Sequence[int]]) -> "Delivered":
        """What people saw, and when machines saw the same."""
        had, command = list[int](), list[int]()
        rates, lost, asked = list[float](), 0, 0
        for a_round in seen["asked"]:
            asked += len(a_round)
            trips = [(each, leases[each[0], each[1]]) for each in a_round if (each[0], each[1]) in leases]
            lost += len(a_round) - len(trips)
            for (_, _, sent, _), moments in trips:
                had.append(moments[0] - sent)
                command.append(moments[1] - sent)
            if trips:
                took = max(moments[0] for _, moments in trips) - min(each[2] for each, _ in trips)
                rates.append(len(trips) / took * 1e9)
        cpu = {name: seconds / max(1, asked) for name, seconds in seen["cpu"].items()}
        return cls(had, command, rates, lost, cpu)


@dataclass(frozen=True, slots=True)
class Seen:
    """One fleet's figures."""

    size: int
    slices: Delivered
    crowds: Delivered
    rest: dict[str, Any]


See = Callable[[Ground, int, Options], Awaitable[Seen]]
"""Asks a fleet of so many for machines, and gives what became of it."""


def load_of(size: int, options: Options, rate: float = RATE) -> dict[str, Any]:
    """What is asked of a fleet of this size: so many a second in rounds, then so many that wait."""
    count = max(5, min(int(SHARE * size), int(rate * min(LOAD_SECONDS, options.seconds))))
    crowd = max(5, min(int(SHARE * size), options.crowd))
    return {
        "slices": (rate, count, max(1, min(options.turns, REQUESTS // count))),
        "crowds": (WAITING, crowd, max(1, min(options.turns, 2 * REQUESTS // crowd))),
    }


async def measure(own: Ground, options: Options, progress: Progress) -> list[Section]:
    """The sections: delivery, the burst, what a connected fleet costs, and what whole leases do."""
    fleets = [size for size in options.fleets if size < options.vms] + [options.vms]
    ways: dict[str, tuple[Sequence[int], See]] = {
        "naive": (options.shared, _naive),
        "hub": (fleets, partial(_hub, kind=LISTENING)),
        "working": (options.working, partial(_hub, kind=WORKING)),
        "direct": (options.directs, _direct),
    }
    share = 1 / sum(len(sizes) for sizes, _ in ways.values())
    seen: dict[str, list[Seen]] = {way: [] for way in ways}
    for way, (sizes, see) in ways.items():
        for size in sizes:
            if size <= options.vms:
                seen[way].append(await see(own, size, options))
            progress(share)
    naive = {each.size: each for each in seen["naive"]}
    sections = [_delivery(seen["hub"], naive), _burst(seen["hub"], naive), _cost(seen["hub"])]
    leases = {"hub": seen["working"], "direct": seen["direct"]}
    return [*sections, *([_leases(leases)] if any(leases.values()) else [])]


async def _hub(own: Ground, size: int, options: Options, *, kind: str) -> Seen:
    fleet = await new_fleet(own, f"bench_hub_{size}", size)
    idle = min(IDLE_SECONDS, options.seconds) if size == options.vms and kind == LISTENING else 0.0
    task = {"machines": size, "idle": idle, "work": kind == WORKING}
    async with AsyncExitStack() as opened:
        service = await opened.enter_async_context(_inside(fleet, load_of(size, options) | task))
        url = f"http://127.0.0.1:{await service.ready()}"
        return await _finish(size, service, await opened.enter_async_context(fleet.living(url, kind=kind)))


async def _direct(own: Ground, size: int, options: Options) -> Seen:
    fleet = await new_fleet(own, f"bench_direct_{size}", size, direct=True)
    load = load_of(size, options, min(RATE, SHARED_WORK / size))
    task = {"machines": 0, "idle": 0.0, "work": True}
    async with fleet.living("") as machines, _inside(fleet, load | task) as service:
        await service.ready()
        return await _finish(size, service, machines)


async def _naive(own: Ground, size: int, options: Options) -> Seen:
    database = f"bench_shared_{size}"
    await own.naive(database, size)
    dsn, log = own.dsn("lablink", database), own.directory / f"{database}.log"
    load = load_of(size, options, SHARED_WORK / size)
    load["crowds"] = (WAITING, min(WAITING, load["crowds"][1]), 1)
    tasks = [{"dsn": dsn, "numbers": task["numbers"]} for task in Fleet(own, database, size, "").tasks("")]
    async with (
        workers("tests.bench.sides.swarm_naive", tasks, log) as machines,
        worker("tests.bench.sides.swarm_naive", load | {"dsn": dsn}, log) as people,
    ):
        return await _finish(size, people, machines)


@asynccontextmanager
async def _inside(fleet: Fleet, load: dict[str, Any]) -> AsyncIterator[Worker]:
    """The allocator that is asked; it begins when as many machines as the load says are connected to its hub."""
    own = fleet.own
    Installation(own.directory, 1, own.server).write_settings()
    task = load | {
        "data_dir": str(own.directory),
        "overrides": fleet.settings,
        "superuser": own.dsn("postgres", fleet.database),
        "postgres": own.server.process.pid,
        "bare": (RATE, min(500, 2 * load["slices"][1])),
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


def _delivery(hub: list[Seen], naive: dict[int, Seen]) -> Section:
    section = Section(f"Delivery of {RATE:g} requests a second, over the hub")
    largest = hub[-1]
    for seen in hub:
        beside = figure(naive[seen.size].slices.had) if seen.size in naive else None
        aim = AIM if seen is largest else None
        section.rows.append(Row(f"{seen.size:,} machines", figure(seen.slices.had), beside, aim))
    bare = figure(largest.rest["bare"])
    section.rows.append(Row("a bare NOTIFY's round trip", bare))
    section.values += times("delivery : bare NOTIFY", figure(largest.slices.had), bare, TIMES_BARE)
    section.values.append(Value("requests of which no machine heard", _lost(hub), _lost(naive.values()), aim=0))
    section.remarks += [
        "From the request inside the allocator until the right machine has its orders; it does no more.",
        "Beside it all machines listen to one channel, with the whole row, and fewer requests come.",
        f"The bare NOTIFY goes {RATE:g} times a second through one connection to one that hears it, amid the fleet.",
    ]
    return section


def _burst(hub: list[Seen], naive: dict[int, Seen]) -> Section:
    section = Section(f"Delivery while {WAITING} people wait")
    for seen in hub:
        aim = DELIVERED_A_SECOND if seen is hub[-1] else None
        ours, beside = seen.crowds.rate, None
        section.rows.append(Row(f"{seen.size:,} machines", figure(seen.crowds.had)))
        if seen.size in naive:
            beside = naive[seen.size].crowds.rate
        section.values.append(Value(f"{seen.size:,} machines", ours, beside, "/s", aim, more=True))
        if beside:
            limit = TIMES_NAIVE if seen.size == TIMES_NAIVE_AT else None
            name = f"{seen.size:,} machines: times the naive way's"
            section.values.append(Value(name, ours / beside, None, "×", limit, more=True))
    section.remarks.append("From the first request of a round to the last machine that has its orders.")
    return section


def _leases(ways: dict[str, list[Seen]]) -> Section:
    section = Section("Whole leases: machines that claim, report that the command runs, and clean")
    for way, fleets in ways.items():
        for seen in fleets:
            section.rows.append(Row(f"{seen.size:,} machines, {way}: has it", figure(seen.slices.had)))
            section.rows.append(Row("  … has the command", figure(seen.slices.command)))
            name = f"{seen.size:,} machines, {way}: {WAITING} people wait"
            section.values.append(Value(name, seen.crowds.rate, None, "/s", more=True))
            section.values += _each(f"{seen.size:,} machines, {way}", seen)
    section.values.append(Value("requests of which no machine heard", sum(map(_lost, ways.values())), aim=0))
    section.remarks += [
        "Transport and agent are the client's; no command runs, and no journal is written.",
        f"Requests come {RATE:g} a second; direct, as in the naive way, {SHARED_WORK:,.0f} : machines at most.",
    ]
    return section


def _cost(hub: list[Seen]) -> Section:
    section = Section("A fleet over the hub")
    for seen in hub:
        if seen.size >= 100:
            kilobytes = seen.rest["bytes"] / seen.size / 1024
            aim = KILOBYTES if seen.size >= 500 else None
            section.values.append(Value(f"{seen.size:,}: memory of the allocator a VM", kilobytes, None, "kB", aim))
        for name, share in seen.rest.get("idle", {}).items():
            section.values.append(Value(f"{seen.size:,} idle: {name}", 100 * share, None, "% of a core"))
        section.values += _each(f"{seen.size:,}", seen)
    return section


def _each(fleet: str, seen: Seen) -> list[Value]:
    """The processor time of a request."""
    cpu = {name: 1000 * seen.slices.cpu[name] for name in ("allocator", "postgres")}
    return [Value(f"{fleet}: {name}, each request", used, None, "ms CPU") for name, used in cpu.items()]


def _lost(fleets: Iterable[Seen]) -> int:
    return sum(each.lost for seen in fleets for each in (seen.slices, seen.crowds))

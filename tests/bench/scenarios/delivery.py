"""Times a request on its whole way, from the person's POST to the command that runs, on both sides in turn."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import TypeVar

from tests.bench.cores import Usage
from tests.bench.figures import Row, Section, Value, figure
from tests.bench.ground import Ground
from tests.bench.load import at_moments, poisson
from tests.bench.options import Options, Progress
from tests.bench.sides.naive import Naive, naive
from tests.bench.sides.ours import MACHINES_A_PROCESS, Ours, ours
from tests.bench.sides.trips import Trip, double_bookings, lost, refused, repeated, spans
from tests.bench.visits import Asked, System, visit

WARM_UP_RATE = 50
"""Requests a second of the warm-up: one for every machine, since a connection's first lease finds no plan made yet."""

SETTLE_SECONDS = 0.2
STEADY, BURST = 10_000, 20_000
"""Numbers of requests from which on they belong to the load, and to the burst; below is the warm-up."""

Aim = tuple[float, float] | None
AIM = (25.0, 100.0)
"""Milliseconds from POST to the command's start on two idle cores: p50 and p99."""

BUSY = 0.1
"""The share of the cores above which other programs spoil the figures."""

T = TypeVar("T")
Both = tuple[T, T]
"""LabLink's and the naive side's."""


async def measure(own: Ground, options: Options, progress: Progress) -> list[Section]:
    """The sections about delivery: people who come one by one, and many who come at once."""
    async with AsyncExitStack() as opened:
        both = await opened.enter_async_context(naive(own, options.clients))
        progress(0.1)
        system = await opened.enter_async_context(ours(own, options.clients))
        progress(0.1)
        asked, used = await _load((system, both), options, progress)
        broken = await system.broken_rules()
        trips = await system.trips(asked[0]), await both.trips(asked[1])
    steady = _steady(options, *_only(trips, STEADY, BURST))
    steady.values += [Value("invariants broken", broken, aim=0), _cost(used, trips)]
    steady.remarks += _remarks(used, trips)
    return [steady, _burst(options, *_only(trips, BURST, 2 * BURST))]


async def _load(
    sides: tuple[Ours, Naive], options: Options, progress: Progress
) -> tuple[Both[list[Asked]], list[Usage]]:
    """Warm-up, slices of load, then the burst; the sides take turns, the first one changing."""
    asked: Both[list[Asked]] = ([], [])
    used = [Usage(), Usage()]
    slices = [poisson(options.rate, options.seconds / options.turns, seed) for seed in range(options.turns)]
    phases = [([n / WARM_UP_RATE for n in range(options.clients)], 0)]
    phases += [(moments, STEADY + 1000 * n) for n, moments in enumerate(slices)]
    phases += [([0.0] * options.burst, BURST)]
    for number, (moments, first) in enumerate(phases):
        for which in (0, 1) if number % 2 else (1, 0):
            system: System = sides[which]
            before = Usage.now()
            asked[which].extend(await at_moments(moments, partial(visit, system, first)))
            used[which] += Usage.now() - before
            await asyncio.sleep(SETTLE_SECONDS)  # the last machines are being cleaned
        progress(0.8 / len(phases))
    return asked, used


def _only(trips: Both[list[Trip]], first: int, last: int) -> Both[list[Trip]]:
    one, other = ([trip for trip in side if first <= trip.asked.number < last] for side in trips)
    return one, other


def _steady(options: Options, mine: list[Trip], theirs: list[Trip]) -> Section:
    section = Section(f"{options.clients} machines, {options.rate:g} requests a second")
    section.rows.append(_row("commit → client woke", mine, theirs, "committed", "woke"))
    section.rows.append(_row("POST → answer", mine, theirs, "sent", "answered"))
    section.rows.append(_row("POST → command started", mine, theirs, "sent", "started", AIM))
    section.rows += [_row(f"  … {name}", mine, [], begin, end) for name, begin, end in STAGES]
    section.values += _values(mine, theirs)
    return section


STAGES = (
    ("POST → commit", "sent", "committed"),
    ("woke → hello", "woke", "hello"),
    ("hello → claim", "hello", "claim"),
    ("claim → intent", "claim", "intent"),
    ("intent → command", "intent", "started"),
)


def _burst(options: Options, mine: list[Trip], theirs: list[Trip]) -> Section:
    section = Section(f"{options.burst} people at the same moment")
    section.rows.append(_row("POST → answer", mine, theirs, "sent", "answered"))
    section.rows.append(_row("POST → command started", mine, theirs, "sent", "started"))
    section.values += _values(mine, theirs)
    return section


def _row(what: str, mine: list[Trip], theirs: list[Trip], begin: str, end: str, aim: Aim = None) -> Row:
    return Row(what, figure(spans(mine, begin, end)), figure(spans(theirs, begin, end)), aim)


def _values(mine: list[Trip], theirs: list[Trip]) -> list[Value]:
    return [
        Value("requests", len(mine), len(theirs)),
        Value("not accepted", refused(mine), refused(theirs), aim=0),
        Value("machines given to two people", double_bookings(mine), double_bookings(theirs), aim=0),
        Value("commands lost", lost(mine), lost(theirs), aim=0),
        Value("commands run twice", repeated(mine), repeated(theirs), aim=0),
    ]


def _cost(used: list[Usage], trips: Both[list[Trip]]) -> Value:
    mine, theirs = (1000 * side.own / max(1, len(asked)) for side, asked in zip(used, trips, strict=True))
    return Value("processor time a request", mine, theirs, "ms")


def _remarks(used: list[Usage], trips: Both[list[Trip]]) -> list[str]:
    late = figure([trip.asked.late for side in trips for trip in side])
    others = (used[0] + used[1]).others
    return [
        "The naive side has no journal, history or queue, and cleans no machine; it is fast because it does less.",
        f"{MACHINES_A_PROCESS} machines share a process, all the cores with the people; each has served before.",
        "PostgreSQL times its commits (before the flush), commands time themselves (date).",
        f"People came at most {late.p99:g} ms late (p99)." if late else "Nobody came.",
        f"Other programs used {others:.0%} of the cores" + (": these figures say little." if others > BUSY else "."),
    ]

"""What came of a rehearsal."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from allocator.rehearsal.plan import Plan
from client.network import Connection

WAITS = """
    SELECT extract(epoch FROM coalesce(assigned_at, ended_at) - created_at)::float8 AS waited,
           assigned_at IS NOT NULL AS served, failure, moves, group_name
    FROM leases WHERE email LIKE 'person-%' ORDER BY place
"""
HELD = "SELECT told, likely_held::float8 AS likely, sure_held::float8 AS sure FROM forecast_calibration"
BROKEN = "SELECT rule || ': ' || what FROM broken_invariants() UNION ALL SELECT 'fair: ' || what FROM rehearsal_unfair"


@dataclass(frozen=True, slots=True)
class Moment:
    """How it was so many seconds from the beginning: people who waited, machines that were lent, and that were up."""

    seconds: float
    waiting: int
    lent: int
    up: int


@dataclass(slots=True)
class Course:
    """The moments of a rehearsal, and which rules were broken meanwhile."""

    moments: list[Moment] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def note(self, moment: Moment, broken: Iterable[str]) -> None:
        """One moment more."""
        self.moments.append(moment)
        self.broken += broken


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What came of it: waits in seconds, of those who were served; moments are seconds from the beginning."""

    waits: list[float]
    groups: dict[str, list[float]]
    """The same of each group, if there are any."""
    unserved: int
    failed: dict[str, int]
    """How many leases failed, by why."""
    moved: int
    busiest: int
    """The longest queue."""
    used: float
    """The share of the machines' time in which they were lent."""
    seconds: float
    told: int
    """To how many it was foretold how long they wait."""
    likely_held: float | None
    """How often the even odds held; None where nothing was foretold."""
    sure_held: float | None
    """How often the nine of ten held."""
    broken: list[str]
    course: list[Moment]


async def outcome(owner: Connection, plan: Plan, course: Course) -> Rehearsed:
    """What the database says at the end."""
    rows = await owner.fetch(WAITS)
    held = await owner.fetchrow(HELD)
    broken = [row[0] for row in await owner.fetch(BROKEN)]
    failures = [row["failure"] for row in rows if row["failure"]]
    moments = course.moments
    return Rehearsed(
        waits=sorted(row["waited"] for row in rows if row["served"]),
        groups=by_group((row["group_name"], row["waited"] if row["served"] else None) for row in rows),
        unserved=sum(not row["served"] for row in rows),
        failed={failure: failures.count(failure) for failure in sorted(set(failures))},
        moved=sum(row["moves"] > 0 for row in rows),
        busiest=max((each.waiting for each in moments), default=0),
        used=used(moments) / plan.machines,
        seconds=moments[-1].seconds if moments else 0.0,
        told=held["told"] if held else 0,
        likely_held=held["likely"] if held else None,
        sure_held=held["sure"] if held else None,
        broken=sorted({*course.broken, *broken}),
        course=moments,
    )


def by_group(waits: Iterable[tuple[str | None, float | None]]) -> dict[str, list[float]]:
    """How long those of each group waited who were served, the largest group first."""
    those: dict[str, list[float]] = {}
    for name, wait in waits:
        if name:
            those.setdefault(name, []).extend([] if wait is None else [wait])
    return {name: sorted(those[name]) for name in sorted(those, key=lambda name: int(name.removeprefix("group-")))}


def used(moments: Sequence[Moment]) -> float:
    """How many machines were lent on average."""
    lent = sum(then.lent * (then.seconds - before.seconds) for before, then in pairwise(moments))
    return lent / moments[-1].seconds if moments else 0.0

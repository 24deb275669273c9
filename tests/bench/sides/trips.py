"""What became of each request, pieced together from what its person, the database, the machine and the command saw."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tests.bench.sides.fleet import Steps
from tests.bench.visits import Asked


@dataclass(frozen=True, slots=True)
class Trip:
    """One request. `started` are the moments at which its command ran, as it tells itself: one if all is well."""

    asked: Asked
    hostname: str | None
    committed: int | None
    started: Sequence[int]
    steps: Steps = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        """Whether the person was promised a machine."""
        return self.asked.status in (200, 201)

    def between(self, begin: str, end: str) -> int | None:
        """Nanoseconds from one moment of the trip to another; None when one of them did not come."""
        first, last = self._moment(begin), self._moment(end)
        return last - first if first is not None and last is not None else None

    def _moment(self, name: str) -> int | None:
        fixed = {"sent": self.asked.sent, "answered": self.asked.answered, "committed": self.committed}
        if name == "started":
            return min(self.started, default=None)
        return fixed[name] if name in fixed else self.steps.get(name)


def spans(trips: Iterable[Trip], begin: str, end: str) -> list[int]:
    """How long every trip took from one moment to another."""
    return [span for trip in trips if (span := trip.between(begin, end)) is not None]


def lost(trips: Iterable[Trip]) -> int:
    """Requests that were accepted and whose command never ran."""
    return sum(trip.accepted and not trip.started for trip in trips)


def repeated(trips: Iterable[Trip]) -> int:
    """Commands that ran more than once."""
    return sum(len(trip.started) > 1 for trip in trips)


def refused(trips: Iterable[Trip]) -> int:
    """Answers that promised nothing."""
    return sum(not trip.accepted for trip in trips)


def double_bookings(trips: Iterable[Trip]) -> int:
    """How often a machine was given to somebody while it was still somebody else's."""
    held = defaultdict(list)
    for trip in trips:
        if trip.hostname and trip.committed:
            held[trip.hostname].append((trip.committed, trip.asked.held_until))
    return sum(later[0] < earlier[1] for stays in held.values() for earlier, later in pairwise(sorted(stays)))

"""Numbers of a run: samples in, quantiles and ratios out."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class Figure:
    """Quantiles of one thing that was timed, in milliseconds."""

    count: int
    p50: float
    p99: float
    max: float


def figure(nanoseconds: Iterable[int]) -> Figure | None:
    """The quantiles of a sample (each is a value that occurred); None of an empty one."""
    ordered = sorted(nanoseconds)
    if not ordered:
        return None
    return Figure(len(ordered), _at(ordered, 0.50), _at(ordered, 0.99), _at(ordered, 1.0))


def _at(ordered: Sequence[int], share: float) -> float:
    rank = math.ceil(round(share * len(ordered), 6))
    return round(ordered[rank - 1] / 1e6, 3)


@dataclass(frozen=True, slots=True)
class Row:
    """One thing timed on both sides; `aim` is what LabLink promises of it on an idle machine: p50 and p99."""

    what: str
    ours: Figure | None
    naive: Figure | None
    aim: tuple[float, float] | None = None

    @property
    def ratio(self) -> float | None:
        """How many times longer the naive way takes, in the median."""
        return round(self.naive.p50 / self.ours.p50, 2) if self.ours and self.naive and self.ours.p50 else None


@dataclass(frozen=True, slots=True)
class Count:
    """Something counted on both sides."""

    what: str
    ours: int | str
    naive: int | str
    aim: str = ""


@dataclass(slots=True)
class Section:
    """One scenario's rows, counts and remarks; `beside` is what LabLink is measured beside."""

    title: str
    beside: str = "naive"
    rows: list[Row] = field(default_factory=list)
    counts: list[Count] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        """The same, ratios included."""
        return asdict(self) | {"rows": [asdict(row) | {"ratio": row.ratio} for row in self.rows]}

"""Numbers of a run: samples in; quantiles, ratios, and whether what was aimed at is reached, out."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median

PARTS = 4
"""A sample is cut into so many parts, and what they differ by is its noise."""

NOISE = 0.15
"""The share by which a single number differs from run to run where nothing has changed."""


@dataclass(frozen=True, slots=True)
class Figure:
    """Quantiles of one thing that was timed, in milliseconds.

    `noise` is by which share the p50 and the p99 of the parts of the sample differ.
    """

    count: int
    p50: float
    p99: float
    max: float
    noise: tuple[float, float] = (NOISE, NOISE)


def figure(nanoseconds: Iterable[int]) -> Figure | None:
    """The quantiles of a sample in the order of its making (each is a value that occurred); None of an empty one."""
    sample = list(nanoseconds)
    if not sample:
        return None
    ordered = sorted(sample)
    p50, p99, most = (_at(ordered, share) for share in (0.50, 0.99, 1.0))
    return Figure(len(ordered), p50, p99, most, (_noise(sample, 0.50), _noise(sample, 0.99)))


def _noise(sample: Sequence[int], share: float) -> float:
    """How much the highest of the parts' quantiles is above the lowest."""
    size = math.ceil(len(sample) / PARTS)
    parts = [_at(sorted(sample[begin : begin + size]), share) for begin in range(0, len(sample), size)]
    return round(max(NOISE, max(parts) / min(parts) - 1), 3) if min(parts) > 0 else NOISE


def _at(ordered: Sequence[int], share: float) -> float:
    rank = math.ceil(round(share * len(ordered), 6))
    return round(ordered[rank - 1] / 1e6, 3)


@dataclass(frozen=True, slots=True)
class Row:
    """One thing timed on both sides, in milliseconds; `aim` is what LabLink promises of it on an idle machine."""

    what: str
    ours: Figure | None
    beside: Figure | None = None
    aim: tuple[float, float] | None = None
    """The p50 and the p99 that are not to be exceeded."""

    @property
    def ratio(self) -> float | None:
        """How many times longer the other way takes, in the median."""
        return round(self.beside.p50 / self.ours.p50, 2) if self.ours and self.beside and self.ours.p50 else None

    @property
    def met(self) -> bool | None:
        """Whether the aim is reached; None where there is none."""
        if self.aim is None:
            return None
        return self.ours is not None and self.ours.p50 <= self.aim[0] and self.ours.p99 <= self.aim[1]


@dataclass(frozen=True, slots=True)
class Value:
    """One number on both sides: a rate, a share, a size, how often something happened. `more` of it is better."""

    what: str
    ours: float | None
    beside: float | None = None
    unit: str = ""
    aim: float | None = None
    more: bool = False
    noise: float = NOISE

    @property
    def ratio(self) -> float | None:
        """How many times better LabLink's is."""
        if not self.ours or not self.beside:
            return None
        return round(self.ours / self.beside if self.more else self.beside / self.ours, 2)

    @property
    def met(self) -> bool | None:
        """Whether the aim is reached; None where there is none."""
        if self.aim is None:
            return None
        return self.ours is not None and (self.ours >= self.aim if self.more else self.ours <= self.aim)


def typical(
    what: str,
    ours: Sequence[float],
    beside: Sequence[float] = (),
    unit: str = "",
    aim: float | None = None,
    *,
    more: bool = False,
) -> Value:
    """A number that was measured several times: the medians, and by how much LabLink's differ."""
    spread = max(ours) / min(ours) - 1 if ours and min(ours) > 0 else NOISE
    mine, theirs = (median(each) if each else None for each in (ours, beside))
    return Value(what, mine, theirs, unit, aim, more, round(max(NOISE, spread), 3))


def times(what: str, one: Figure | None, other: Figure | None, aim: tuple[float | None, float | None]) -> list[Value]:
    """How many times as long as another thing of the same run something takes: in p50 and in p99."""
    if not one or not other:
        return []
    pairs = (("p50", one.p50, other.p50, aim[0]), ("p99", one.p99, other.p99, aim[1]))
    return [Value(f"{what}, {name}", mine / max(theirs, 1e-3), None, "×", limit) for name, mine, theirs, limit in pairs]


@dataclass(slots=True)
class Section:
    """What belongs together in a scenario; `beside` is what `ours` is measured beside."""

    title: str
    beside: str = "naive"
    ours: str = "LabLink"
    rows: list[Row] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        """The same, with ratios and whether aims are met."""
        rows, values = (
            [asdict(each) | {"ratio": each.ratio, "met": each.met} for each in many]
            for many in (self.rows, self.values)
        )
        return asdict(self) | {"rows": rows, "values": values}

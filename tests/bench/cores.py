"""What the processors are busy with: how much a side costs, and how much others on the machine disturb the figures."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds of processor time: of this process and all below it, of everybody, and what there was."""

    own: float = 0.0
    all: float = 0.0
    available: float = 0.0

    @classmethod
    def now(cls) -> Self:
        """Since the machine and the processes began. Nothing but zeros where there is no /proc."""
        try:
            ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        except OSError:
            return cls()
        idle = ticks[3] + ticks[4]
        return cls(seconds_of(os.getpid()), (sum(ticks) - idle) / TICKS, sum(ticks) / TICKS)

    def __sub__(self, earlier: "Usage") -> "Usage":
        return Usage(self.own - earlier.own, self.all - earlier.all, self.available - earlier.available)

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.own + other.own, self.all + other.all, self.available + other.available)

    @property
    def others(self) -> float:
        """The share of the processors that other programs used."""
        return max(0.0, self.all - self.own) / self.available if self.available else 0.0


def server_seconds(postmaster: int) -> float:
    """Seconds of processor time of PostgreSQL's running processes; those that have ended are not counted."""
    pids = [pid for pid, parent, _ in _processes() if postmaster in (pid, parent)]
    total = 0
    for pid in pids:
        with suppress(OSError):  # it ended meanwhile
            total += int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
    return total / 1e9


def seconds_of(root: int) -> float:
    """Seconds of processor time of a process and its descendants, the ended ones included."""
    ticks: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for pid, parent, used in _processes():
        ticks[pid] = used
        children.setdefault(parent, []).append(pid)
    total, fresh = 0, [root]
    while fresh:
        total += sum(ticks.get(pid, 0) for pid in fresh)
        fresh = [child for pid in fresh for child in children.get(pid, [])]
    return total / TICKS


def _processes() -> Iterator[tuple[int, int, int]]:
    """Each process, its parent, and the ticks of it and of its children that it waited for."""
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except OSError:  # it ended meanwhile
                continue
            yield int(name), int(fields[1]), sum(map(int, fields[11:15]))

"""How this machine came up: the phases of its boot, each with the seconds that it took, up to the first hello.

The machine's own clock is only compared with EC2's, which started it. All else is counted since the kernel began.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from uuid import UUID

Phase = tuple[str, float]
"""A phase and how many seconds it took."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_WITHIN_SECONDS = 3600.0
"""A client that starts later was started by somebody, and an instance that EC2 started earlier was rebooted."""


@dataclass(frozen=True, slots=True)
class Boot:
    """One boot of a machine."""

    id: UUID
    phases: tuple[Phase, ...]


def uptime() -> float:
    """Seconds since the kernel began, also those that the machine slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def boot_name(boot_id: Path = BOOT_ID) -> str | None:
    """What this boot of the machine is called; None where nothing says so."""
    return boot_id.read_text().strip() if boot_id.exists() else None


def boot_of(
    began: float, phases: Path | None, started_at: datetime | None, now: float | None = None, boot_id: Path = BOOT_ID
) -> Boot | None:
    """The boot that led to this client, which began at `began` and was heard `now`; None when it is no boot's.

    `phases` is what the first boot's script wrote, `started_at` when EC2 started the instance.
    """
    if began > _WITHIN_SECONDS or not boot_id.exists():
        return None
    written = list(_written(phases)) if phases else []
    begins = [*(written or [("system", 0.0)]), ("ready-check", began), ("", uptime() if now is None else now)]
    took = [(name, max(0.0, until - at)) for (name, at), (_, until) in pairwise(begins)]
    if started_at is not None:
        before = time.time() - uptime() - started_at.timestamp()
        if before < _WITHIN_SECONDS:
            took.insert(0, ("instance", max(0.0, before)))
    return Boot(UUID(boot_id.read_text().strip()), tuple((name, round(seconds, 1)) for name, seconds in took))


def _written(phases: Path) -> Iterator[Phase]:
    """The phases that a script wrote during this boot, each with when it began."""
    try:
        if phases.stat().st_mtime < time.time() - uptime():
            return
        for line in phases.read_text().splitlines()[:7]:
            name, at = line.split()
            if name != "failed":
                yield name, float(at)
    except (OSError, ValueError):
        return

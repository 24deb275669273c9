"""What the service reads of pools, as values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from client.command import Accepts


@dataclass(frozen=True, slots=True)
class PoolRules:
    """What a pool accepts, and for how long it lends."""

    name: str
    accepts: Accepts
    lease_seconds: int
    members_only: bool
    """Whether only members of a group that has a share in it may ask."""
    per_person: int
    """How many live leases a person may have in it; of all pools where that is 1, one."""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """The rules as a row of pools tells them."""
        accepts = Accepts(row["accepts_desktop"], tuple(row["programs"]))
        return cls(row["name"], accepts, row["lease_seconds"], row["access"] == "members", row["per_person"])


@dataclass(frozen=True, slots=True)
class Counts:
    """The pool at a glance: machines that can be had now, that are lent, that are on their way; people who wait."""

    free: int
    lent: int
    coming: int
    waiting: int
    paused: bool = False


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """A pool as everybody may see it. The waits are of whoever would ask now, where somebody waits already."""

    name: str
    free: int
    lent: int
    coming: int
    waiting: int
    eta_seconds: int | None
    eta_p90_seconds: int | None
    booting: int
    boot_seconds: float | None
    boot_p90_seconds: float | None
    paused: bool
    wanted: int | None
    missing: int | None
    stopped: bool
    hours: str | None

    @property
    def counts(self) -> Counts:
        """The pool at a glance."""
        return Counts(self.free, self.lent, self.coming, self.waiting, self.paused)

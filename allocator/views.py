"""What the service reads from the database, as values."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, Literal, Self
from uuid import UUID

from allocator.pool_views import PoolStatus
from client.protocol import Kind

LeaseStatus = Literal["queued", "assigned", "claimed", "active", "ended", "failed", "cancelled"]
VmStatus = Literal["booting", "available", "in-use", "cleaning", "failed", "retired"]
OperationStatus = Literal["waiting", "running", "done", "failed"]

RequestOutcome = Literal["created", "repeated", "live"]
EndedBy = Literal["holder", "admin", "machine", "service"]

NOTICED_SECONDS = 30
"""By how much what a page says of time may be off before it is made again."""

LIVE: frozenset[LeaseStatus] = frozenset({"queued", "assigned", "claimed", "active"})


@dataclass(frozen=True, slots=True)
class Place:
    """What changes of a lease that waits when others come and go; as in LeaseView."""

    position: int
    eta_seconds: int | None
    eta_p90_seconds: int | None
    held_back: str | None
    because: str | None
    paused: bool
    now: datetime


PLACE = tuple(each.name for each in fields(Place) if each.name not in ("paused", "now"))
"""What of it takes a look at the queue."""


@dataclass(frozen=True, slots=True)
class LeaseView:
    """A lease as its holder sees it. `now` is when the database was read: what the other times are told against."""

    id: UUID
    email: str
    status: LeaseStatus
    pool: str
    position: int | None
    eta_seconds: int | None
    vm_id: int | None
    hostname: str | None
    epoch: int | None
    kind: Kind
    crd_command: str | None
    exit_code: int | None
    output: str | None
    failure: str | None
    created_at: datetime
    assigned_at: datetime | None
    active_at: datetime | None
    ended_at: datetime | None
    expires_at: datetime | None
    version: int
    ended_by: EndedBy | None
    needs_line: bool
    trouble: str | None
    moves: int
    kept_until: datetime | None
    extensible_until: datetime | None
    warned_from: datetime | None
    eta_p90_seconds: int | None
    paused: bool
    held_back: str | None
    because: str | None
    idle_until: datetime | None
    unused_since: datetime | None
    silent_since: datetime | None
    passed_over: bool
    left_idle: bool
    now: datetime

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """The view in a row of `lease_views` with the time of reading; of a row without a place it has none yet."""
        here: dict[str, Any] = {name: row.get(name) if name in PLACE else row[name] for name in cls.__slots__}
        return cls(**here)

    @property
    def live(self) -> bool:
        """Whether it can still change."""
        return self.status in LIVE

    @property
    def is_asked(self) -> bool:
        """Whether its holder is asked for a fresh line now."""
        return self.needs_line and (self.status == "assigned" or self.passed_over)

    @property
    def ends_soon(self) -> bool:
        """Whether its holder is to be warned that it ends."""
        return self.warned_from is not None and self.now >= self.warned_from

    @property
    def looks(self) -> tuple[object, ...]:
        """What stays the same while nothing that a person is shown changes by more than half a minute."""
        wait = None if self.eta_seconds is None else (self.now.timestamp() + self.eta_seconds) // NOTICED_SECONDS
        return (
            self.version,
            self.position,
            self.paused,
            self.held_back,
            wait,
            self.extensible_until is None,
            self.silent_since is None,
            self.now.timestamp() // NOTICED_SECONDS,
        )

    def at(self, place: Place) -> Self:
        """The same while it waits, at its place of now."""
        return replace(self, **{each.name: getattr(place, each.name) for each in fields(place)})


FACTS = ", ".join(name for name in LeaseView.__slots__ if name not in (*PLACE, "now")) + ", clock() AS now"
"""What to select from `lease_views` where nobody's place is asked for, which takes a look at the whole queue."""


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A lease and the token that opened it."""

    lease: LeaseView
    token: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """What request_vms made of a request: the lease and the salt of its token (none when it is somebody's live one).

    `vm_id` and `epoch` are of the machine that a new lease got at once.
    """

    lease_id: UUID
    outcome: RequestOutcome
    token_salt: bytes | None
    vm_id: int | None
    epoch: int | None


@dataclass(frozen=True, slots=True)
class VmView:
    """One machine, as anybody may see it."""

    id: int
    hostname: str
    status: VmStatus
    pool: str
    created_at: datetime
    updated_at: datetime
    seen_at: datetime | None


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that has to hold, and whether it does; None: it is only told, as is what comes next."""

    what: str
    holds: bool | None
    detail: str | None


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A machine that was let in, and the database role it has now."""

    vm_id: int
    hostname: str
    role: str


@dataclass(frozen=True, slots=True)
class Instance:
    """An EC2 instance that has shown who it is, and when AWS started it."""

    id: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Absent:
    """A machine that was invited and did not come; the instance that it would be, if it is of the fleet."""

    token_sha256: bytes
    hostname: str
    instance_id: str | None


@dataclass(frozen=True, slots=True)
class OperationView:
    """One run of something long, as its row is now."""

    id: int
    kind: str
    status: OperationStatus
    started_by: str
    started_at: datetime
    finished_at: datetime | None
    done: int
    total: int | None
    step: str | None
    result: object
    error: str | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """From its row, whose result is JSON."""
        return cls(**dict(row) | {"result": json.loads(row["result"] or "null")})


@dataclass(frozen=True, slots=True)
class FleetVmView:
    """One machine of the fleet: whether it is wanted, which instance it is, who has it."""

    hostname: str
    pool: str
    wanted: bool
    instance_type: str | None
    instance_id: str | None
    made_at: datetime | None
    status: VmStatus | None
    draining: bool | None
    held_by: str | None
    held_until: datetime | None
    reboots: int
    why: str


@dataclass(frozen=True, slots=True)
class Tally:
    """How many machines and live leases there are of each status, the longest wait, and the pools, for the metrics."""

    vms: Mapping[str, int]
    leases: Mapping[str, int]
    oldest_wait_seconds: float
    waits_held: Mapping[str, Mapping[str, float]]
    """Of each pool, how often waits were no longer than was told: for even odds (`likely`) and nine of ten (`sure`)."""
    pools: Sequence[PoolStatus]


@dataclass(frozen=True, slots=True)
class HistoryHead:
    """The newest seal of the history. Whoever keeps it as text can tell later whether anything up to it was changed."""

    seal: int
    sha256: str
    events: int

    def __str__(self) -> str:
        return f"{self.seal}:{self.sha256}"

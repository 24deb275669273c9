"""The contract between the allocator and a VM's client: the words they exchange, and nothing that acts on them."""

import json
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from client.command import Accepts, Command

CHANNEL = "vm_updates"
"""PostgreSQL channel on which changed rows of `vms` are hinted at."""

HUB_PATH = "/api/v1/hub"
"""Where an allocator takes machines' WebSockets."""

HUB_HEADER = "LabLink-Hub-SHA256"
"""With which a machine that enrols says which token it will show there, in hexadecimal."""

HUB_MESSAGE_BYTES = 524_288
"""The longest message: a report with 64 KiB of output, each of its characters escaped."""

HUB_CLOSED, HUB_REFUSED = 1012, 1008
"""Why the allocator closes one: come again, within the seconds that the reason says; or it takes nothing of this."""

STALE_EPOCH, NOT_ENROLLED, NOBODYS_TOKEN = "LL001", "LL002", "LL010"
"""SQLSTATEs of refusals that mean more than no: see allocator/sql/functions/10_basics.sql."""

TransportName = Literal["direct", "hub", "auto"]
"""How a machine speaks: to PostgreSQL, over a WebSocket to an allocator, or whichever answers, the hub first."""

Kind = Literal["desktop", "job", "hold", "typed"]
"""What a lease is for; `typed` is a line of an admin's, until the machine has reported which of the first two it is."""

CommandKind = Literal["desktop", "job"]
Outcome = Literal["started", "exited", "failed", "unknown"]

Failure = Literal[
    "code-used",
    "code-expired",
    "command-failed",
    "timed-out",
    "refused",
    "not-installed",
    "unknown",
    "lost",
    "vm-failed",
    "vm-deleted",
    "deadline",
    "queue-timeout",
    "no-line",
    "database-restored",
]
"""Why a lease failed (`leases.failure`). What its holder is told about each is `allocator.failure_words.FAILURES`."""


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """Where the machine's client connects to, and as whom. `ca_pem` is the authority that vouches for the server."""

    host: str
    port: int
    database: str
    user: str
    tls: Literal["verify-full", "loopback"]
    ca_pem: str | None = None


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A machine that was let in, and how it is to speak from now on."""

    vm_id: int
    hostname: str
    transport: TransportName
    database: DatabaseAddress


@dataclass(frozen=True, slots=True)
class Hint:
    """One changed row of `vms`, as a notification tells it: a reason to go and look, never the truth."""

    id: int
    hostname: str
    status: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Memory:
    """The highest (epoch, lease) that the machine's journal remembers; `(0, None)` on a new machine."""

    epoch: int
    lease_id: UUID | None


@dataclass(frozen=True, slots=True)
class Orders:
    """The answer to `hello`: what the database wants of this VM now. `period_seconds` is when to say hello again."""

    vm_id: int
    hostname: str
    status: str
    epoch: int
    lease_id: UUID | None
    lease_status: str | None
    kind: Kind | None
    period_seconds: float


@dataclass(frozen=True, slots=True)
class Assignment:
    """The answer to `claim`. Exactly one of `command` and `line` is set; `line` is what an admin typed in psql.

    `limit_seconds` is how long a desktop command may take; a job runs until its lease ends.
    """

    lease_id: UUID
    epoch: int
    command: Command | None
    line: str | None
    accepts: Accepts
    limit_seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """How the command of (lease, epoch) goes. `output` is already redacted; `failure` is a Failure.

    `kind` is what the command turned out to be; None when it could not be read, or a crash left its outcome unknown.
    """

    lease_id: UUID
    epoch: int
    outcome: Outcome
    exit_code: int | None = None
    output: str = ""
    failure: str | None = None
    kind: CommandKind | None = None


def parse_hints(payload: str) -> list[Hint] | None:
    """The hints in a notification, or None when it cannot be read (anyone may forge one): then go and look."""
    try:
        rows = json.loads(payload)
        return [Hint(int(r["id"]), str(r["hostname"]), str(r["status"]), int(r["epoch"])) for r in rows] or None
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def concerns(payload: str, vm_id: int | None) -> bool:
    """Whether a notification is a reason to look: it hints at this machine, or says nothing that can be read."""
    hints = parse_hints(payload)
    return hints is None or vm_id is None or any(hint.id == vm_id for hint in hints)

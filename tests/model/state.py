"""What the model remembers: plain, immutable values, so that a state can be hashed, compared and kept.

One machine, a few leases that are all queued at the start, and everything that outlives a crash or does not.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

BOOTING, AVAILABLE, IN_USE, CLEANING, LOST = "booting", "available", "in-use", "cleaning", "failed (lost)"
QUEUED, ASSIGNED, CLAIMED, ACTIVE = "queued", "assigned", "claimed", "active"
ENDED, FAILED, CANCELLED = "ended", "failed", "cancelled"
TERMINAL = (ENDED, FAILED, CANCELLED)

DESKTOP, JOB = "desktop", "job"
TYPED = "typed"
"""A line that an admin typed: a desktop's here, which the database does not know before the machine says so."""

INTENT, DONE, FAILURE, UNKNOWN = "intent", "done", "failed", "unknown"
STARTED = "started"

NOBODY = -1


class Key(NamedTuple):
    """One assignment of one lease: what a command is filed under, and started at most once for."""

    epoch: int
    lease: int = NOBODY


class Lease(NamedTuple):
    """A row of `leases`. The epoch is that of its assignment, and kept only while it is live.

    A desktop is active once its command has exited 0, a job once it has started. One that needs a line waits for its
    holder, queued or on a machine that is kept for it.
    """

    kind: str = DESKTOP
    status: str = QUEUED
    epoch: int = 0
    needs_line: bool = False
    passed_over: bool = False
    """It waits, and others are served before its line comes: it was asked for on a machine, and did not come."""

    moves: int = 0
    """How many machines it may still lose."""


class Database(NamedTuple):
    """The committed truth: the machine's row and the leases, oldest request first."""

    status: str
    epoch: int
    lease: int
    leases: tuple[Lease, ...]


class Journal(NamedTuple):
    """What the machine has written durably: a verdict per key, and the fence of its last wipe."""

    fence: int = 0
    records: tuple[tuple[Key, str], ...] = ()
    damaged: bool = False


class Session(NamedTuple):
    """What a started command left on the machine; `ready` once its holder can use it."""

    key: Key
    ready: bool = False


class Machine(NamedTuple):
    """Disk and processes of the VM, apart from the journal. An orphan is a child whose client has died."""

    session: Session | None = None
    child: Key | None = None
    orphan: Key | None = None


class Client(NamedTuple):
    """One client process: what it does next, for which key. All of it is gone after a crash."""

    doing: str = "down"
    key: Key = Key(0)
    outcome: str = ""
    told: Key | None = None
    """What it believes the database knows already; only a client that would not report again keeps that in mind."""


class Message(NamedTuple):
    """A write that a client sent: the verb and its arguments."""

    verb: str
    key: Key
    outcome: str = ""


class Faults(NamedTuple):
    """How often each bounded fault may still happen. Crashes and lost answers are unbounded."""

    losses: int = 1
    late_writes: int = 0
    restores: int = 0
    damages: int = 0
    lines: int = 0
    """Fresh lines that holders give; where they give none, no code grows old."""
    moves: int = 0
    """How many machines each lease may lose."""
    tellings: int = 0
    """Orders that the allocator sends by itself when it lends the machine, and that come whenever they come."""


class State(NamedTuple):
    """Everything at one moment. `started` is the observer's own record, which no crash or restore touches."""

    database: Database
    clients: tuple[Client, ...]
    faults: Faults
    journal: Journal = Journal()
    machine: Machine = Machine()
    started: tuple[Key, ...] = ()
    wire: Message | None = None
    backup: Database | None = None
    heard: bool = True
    nudged: bool = False
    told: Key | None = None
    """Orders on their way to the machine, which has not asked for them."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The protocol, one switch a rule: all on is what LabLink does, and each one off is a way to break it."""

    cleaning: bool = True
    """A machine that was lent goes through `cleaning` before it is available again."""
    one_transaction: bool = True
    """A lease becomes terminal in the transaction that takes its machine away."""
    epoch_rises: bool = True
    """The epoch rises whenever the machine changes hands or is cut off."""
    epoch_checked: bool = True
    """The database refuses a write that carries another epoch than the machine's."""
    claim_repeats: bool = True
    """A claim may be repeated: the second one gets the answer that was lost."""
    polls: bool = True
    """A client says hello periodically, whether or not a notification reached it."""
    epoch_jumps: bool = True
    """A database that is behind the machine's memory fails the lease and jumps past all that is remembered."""
    journal: bool = True
    """What the journal holds survives a crash."""
    intent_first: bool = True
    """The intent is durable before the command starts."""
    recover_before_poll: bool = True
    """A starting client closes every open intent as unknown before it first says hello."""
    retry_unknown: bool = False
    """A command of unknown outcome is run again."""
    wipe_fences_intents: bool = True
    """A wipe writes the fence and closes open intents, in one durable write."""
    fence_before_erase: bool = True
    """That write comes before the first file is erased."""
    newest_only: bool = True
    """An intent is refused unless it is newer than the fence and than every other key on record."""
    damage_fences: bool = True
    """A damaged journal begins anew with a fence, and with an unknown outcome for the lease that is live now."""
    reports_again: bool = True
    """A client reports whatever hello shows the database not to know, even if a report of it was answered before."""
    news_only: bool = True
    """Orders that come unasked count only above all that the machine remembers."""
    one_client: bool = True
    """A second client on the machine finds the lock taken and exits."""
    kind_reported: bool = True
    """What a typed line is comes with the reports of its command; else the database takes it for a job."""
    child_dies: bool = True
    """A client's child dies with it."""
    moves: bool = True
    """A lease whose machine is lost waits for another one."""

    def switched(self, name: str) -> "Rules":
        """These rules with one of them turned round."""
        return replace(self, **{name: not getattr(self, name)})


def first_state(rules: Rules, faults: Faults, kinds: tuple[str, ...]) -> State:
    """A machine that has never said hello, and people already waiting for it, each with a command of that kind."""
    database = Database(BOOTING, 0, NOBODY, tuple(Lease(kind, moves=faults.moves) for kind in kinds))
    return State(database, (Client(),) * (1 if rules.one_client else 2), faults)

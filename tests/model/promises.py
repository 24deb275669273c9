"""What must never happen (the invariants of the protocol), looked for in every state and at every step."""

from collections.abc import Callable

from .client import Step
from .journal import memory
from .state import (
    ACTIVE,
    ASSIGNED,
    AVAILABLE,
    FAILED,
    IN_USE,
    LOST,
    NOBODY,
    QUEUED,
    TERMINAL,
    TYPED,
    Key,
    Machine,
    Session,
    State,
)

PROMISES = {
    "I2": "a command starts at most once per (lease, epoch)",
    "I3": "an available machine carries nothing of an earlier lease",
    "I4": "an active lease had its own command started exactly once",
    "I5": "the session on the machine belongs to the active lease, and a desktop is ready to log in to",
    "I6": "a machine is in-use exactly when a live lease names it with its epoch",
    "I7": "the epoch never falls as the machine sees it",
    "I8": "a terminal lease never changes",
    "I9": "no write with an old epoch succeeds",
    "kept": "who loses a machine that could be replaced keeps the lease",
    "rest": "from every state, the protocol left alone comes to rest",
    "served": "while somebody waits, the protocol left alone can make somebody's lease active",
}

EMPTY = Machine()


def broken_in(state: State) -> str | None:
    """The first promise that does not hold in this state."""
    return next((name for name, breaks in _IN_A_STATE.items() if breaks(state)), None)


def broken_by(before: State, step: Step) -> str | None:
    """The first promise that this step breaks, whatever state it leads to."""
    return next((name for name, breaks in _AT_A_STEP.items() if breaks(before, step)), None)


def at_rest(state: State) -> bool:
    """Every lease is over or its holder away, and the machine waits for the next; or only who has it can go on."""
    db = state.database
    if db.status == IN_USE:
        return state.heard and (db.leases[db.lease].status == ACTIVE or db.leases[db.lease].needs_line)
    return (
        state.heard
        and db.status == AVAILABLE
        and all(lease.status in TERMINAL or lease.passed_over for lease in db.leases)
    )


def somebody_waits(state: State) -> bool:
    """A request is in the queue."""
    return any(lease.status == QUEUED and not lease.passed_over for lease in state.database.leases)


def somebody_is_served(state: State) -> bool:
    """A lease is active on a machine that has been heard, or one is kept for somebody who is asked for a line."""
    leases = state.database.leases
    return state.heard and any(
        lease.status == ACTIVE or (lease.status == ASSIGNED and lease.needs_line) for lease in leases
    )


def _started_twice(state: State) -> bool:
    return len(state.started) != len(set(state.started))


def _available_with_leftovers(state: State) -> bool:
    """After a restore the database cannot know better until the machine has spoken."""
    return state.database.status == AVAILABLE and state.heard and state.machine != EMPTY


def _active_without_its_command(state: State) -> bool:
    return any(state.started.count(key) != 1 for key in _active(state))


def _active_without_its_session(state: State) -> bool:
    return state.heard and any(state.machine.session != Session(key, ready=True) for key in _active(state))


def _row_and_lease_disagree(state: State) -> bool:
    db = state.database
    lent = [
        Key(lease.epoch, number)
        for number, lease in enumerate(db.leases)
        if lease.status not in TERMINAL and lease.status != QUEUED
    ]
    return lent != ([Key(db.epoch, db.lease)] if db.status == IN_USE else [])


def _started_on_leftovers(before: State, step: Step) -> bool:
    """A lease may start on what an earlier line of its own left behind."""
    begun = set(step.state.started) - set(before.started)
    left = before.machine._replace(session=None) != EMPTY or before.machine.session
    return any(left is True or (left and left.key.lease != key.lease) for key in begun)


def _epoch_fell(before: State, step: Step) -> bool:
    return step.seen is not None and step.seen < memory(before.journal).epoch


def _terminal_lease_changed(before: State, step: Step) -> bool:
    is_restore = before.heard and not step.state.heard  # it brings back what was
    if is_restore or step.state.database == before.database:
        return False
    pairs = zip(before.database.leases, step.state.database.leases, strict=True)
    return any(was.status in TERMINAL and was != now for was, now in pairs)


def _old_write_succeeded(before: State, step: Step) -> bool:
    is_old = step.written is not None and step.written != before.database.epoch
    return is_old and step.state.database != before.database


def _lease_lost_with_its_machine(before: State, step: Step) -> bool:
    """The machine left service while it was lent to somebody who could have another."""
    was, now = before.database, step.state.database
    if was.lease == NOBODY or now.status != LOST:
        return False
    return (
        was.leases[was.lease].moves > 0
        and was.leases[was.lease].kind != TYPED
        and now.leases[was.lease].status == FAILED
    )


def _active(state: State) -> list[Key]:
    leases = enumerate(state.database.leases)
    return [Key(lease.epoch, number) for number, lease in leases if lease.status == ACTIVE]


_IN_A_STATE: dict[str, Callable[[State], bool]] = {
    "I2": _started_twice,
    "I3": _available_with_leftovers,
    "I4": _active_without_its_command,
    "I5": _active_without_its_session,
    "I6": _row_and_lease_disagree,
}

_AT_A_STEP: dict[str, Callable[[State, Step], bool]] = {
    "I7": _epoch_fell,
    "I8": _terminal_lease_changed,
    "I9": _old_write_succeeded,
    "kept": _lease_lost_with_its_machine,
    "I3": _started_on_leftovers,
}

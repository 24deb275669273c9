"""The database's transactions: each takes the committed rows and gives the next, unchanged where it refuses.

Rule 1 is why no clock appears: a deadline is something that may strike at any moment.
"""

from .state import (
    ACTIVE,
    ASSIGNED,
    AVAILABLE,
    BOOTING,
    CANCELLED,
    CLAIMED,
    CLEANING,
    DESKTOP,
    DONE,
    ENDED,
    FAILED,
    IN_USE,
    JOB,
    LOST,
    NOBODY,
    QUEUED,
    STARTED,
    TERMINAL,
    TYPED,
    UNKNOWN,
    Database,
    Key,
    Lease,
    Message,
    Rules,
)


def assign(db: Database, rules: Rules) -> Database:
    """The longest waiting request gets the machine, if that is available."""
    waiting = [number for number, lease in enumerate(db.leases) if lease.status == QUEUED and not lease.passed_over]
    if db.status != AVAILABLE or not waiting:
        return db
    epoch = _raised(db.epoch, rules)
    taken = db._replace(status=IN_USE, epoch=epoch, lease=waiting[0])
    return _with_lease(taken, waiting[0], ASSIGNED, epoch)


def end_lease(db: Database, number: int, rules: Rules) -> Database:
    """The person lets go of a request or of a machine."""
    status = db.leases[number].status
    if status in TERMINAL:
        return db
    return _finish(db, number, ENDED if status == ACTIVE else CANCELLED, rules)


def deadline(db: Database, rules: Rules) -> Database:
    """A command that is not active in time is for another machine. Who gives no line in time keeps the place only."""
    number = db.lease
    if number == NOBODY or db.leases[number].status not in (ASSIGNED, CLAIMED):
        return db
    if not db.leases[number].needs_line:
        return _finish(db, number, _after_loss(db, rules), rules)
    waits = _with(db, number, db.leases[number]._replace(passed_over=True, moves=db.leases[number].moves + 1))
    return _finish(waits, number, QUEUED, rules)


def give_up_waiting(db: Database) -> Database:
    """Whoever is passed over has waited too long for a line."""
    leases = (each._replace(status=FAILED, passed_over=False) if each.passed_over else each for each in db.leases)
    return db._replace(leases=tuple(leases))


def grow_old(db: Database, number: int) -> Database:
    """A code that was not delivered for ten minutes is forgotten."""
    lease = db.leases[number]
    if lease.kind != DESKTOP or lease.status not in (QUEUED, ASSIGNED):
        return db
    return _with(db, number, lease._replace(needs_line=True))


def renew_line(db: Database, number: int, rules: Rules) -> Database:
    """The holder gives a fresh line: on a machine that is kept for it, at the next epoch."""
    lease = db.leases[number]
    if not lease.needs_line or lease.status in TERMINAL:
        return db
    if lease.status == QUEUED:
        return _with(db, number, lease._replace(needs_line=False, passed_over=False))
    epoch = _raised(db.epoch, rules)
    return _with(db._replace(epoch=epoch), number, lease._replace(needs_line=False, epoch=epoch))


def declare_lost(db: Database, rules: Rules) -> Database:
    """The sweep has heard nothing for too long: the lease moves and the machine is cut off."""
    if db.status in (LOST, BOOTING):
        return db
    freed = db if db.lease == NOBODY else _freed(db, db.lease, _after_loss(db, rules))
    return freed._replace(status=LOST, epoch=_raised(db.epoch, rules), lease=NOBODY)


def receive(db: Database, message: Message, rules: Rules) -> Database:
    """What a client's call does to the rows; done twice, the second time changes nothing."""
    if message.verb == "hello":
        return _hello(db, message.key, rules)
    if message.key.epoch != db.epoch and rules.epoch_checked:
        return db
    if message.verb == "claim":
        return _claim(db)
    if message.verb == "report":
        return _report(db, message, rules)
    return _cleaned(db)


def claim_answer(db: Database, epoch: int, rules: Rules) -> Key | None:
    """What a claim that arrives now is answered: whose command to run, or a refusal."""
    claimable = (ASSIGNED, CLAIMED) if rules.claim_repeats else (ASSIGNED,)
    if db.lease == NOBODY or db.leases[db.lease].status not in claimable or db.leases[db.lease].needs_line:
        return None
    return Key(epoch, db.lease) if epoch == db.epoch or not rules.epoch_checked else None


def _hello(db: Database, memory: Key, rules: Rules) -> Database:
    """First contact, return after being lost, and the discovery that the database was restored."""
    another = db.status == IN_USE and memory.epoch == db.epoch and memory.lease != db.lease
    if (memory.epoch > db.epoch or another) and rules.epoch_jumps:
        freed = db if db.lease == NOBODY else _with_lease(db, db.lease, FAILED)
        return freed._replace(status=CLEANING, epoch=memory.epoch + 1, lease=NOBODY)
    if db.status == BOOTING:
        return db._replace(status=AVAILABLE)
    if db.status == LOST:
        return db._replace(status=CLEANING)
    return db


def _claim(db: Database) -> Database:
    if db.lease == NOBODY or db.leases[db.lease].status != ASSIGNED or db.leases[db.lease].needs_line:
        return db
    return _with_lease(db, db.lease, CLAIMED, db.epoch)


def _report(db: Database, message: Message, rules: Rules) -> Database:
    """A job that started and any command that is done make their lease active; a failure ends it.

    What is unknown never runs again in its epoch: a desktop's holder is asked for a line, a job begins anew.
    """
    ours = db.lease == message.key.lease or not rules.epoch_checked
    if db.lease == NOBODY or not ours or db.leases[db.lease].status not in (CLAIMED, ACTIVE):
        return db
    if message.outcome == UNKNOWN and db.leases[db.lease].kind == DESKTOP:
        return _with(db, db.lease, db.leases[db.lease]._replace(status=ASSIGNED, needs_line=True))
    if message.outcome not in (STARTED, DONE):
        return _begun_again(db, rules) if message.outcome == UNKNOWN else _finish(db, db.lease, FAILED, rules)
    db = _with_kind(db, DESKTOP if rules.kind_reported else JOB)
    if message.outcome == STARTED and db.leases[db.lease].kind == DESKTOP:
        return db
    return _with_lease(db, db.lease, ACTIVE, db.epoch)


def _begun_again(db: Database, rules: Rules) -> Database:
    """The job on the same machine at the next epoch, or over where it may not be run again."""
    if _after_loss(db, rules) == FAILED:
        return _finish(db, db.lease, FAILED, rules)
    lease, epoch = db.leases[db.lease], _raised(db.epoch, rules)
    again = lease._replace(status=ASSIGNED, epoch=epoch, moves=lease.moves - 1)
    return _with(db._replace(epoch=epoch), db.lease, again)


def _with_kind(db: Database, kind: str) -> Database:
    """The machine's lease as one of this kind, if it was a typed line."""
    lease = db.leases[db.lease]
    return _with(db, db.lease, lease._replace(kind=kind if lease.kind == TYPED else lease.kind))


def _cleaned(db: Database) -> Database:
    return db._replace(status=AVAILABLE) if db.status == CLEANING else db


def _finish(db: Database, number: int, status: str, rules: Rules) -> Database:
    """A lease is over or waits again; if it had the machine, that goes to cleaning in the same transaction."""
    finished = _freed(db, number, status)
    if db.lease != number or not rules.one_transaction:
        return finished
    after = CLEANING if rules.cleaning else AVAILABLE
    return finished._replace(status=after, epoch=_raised(db.epoch, rules), lease=NOBODY)


def _after_loss(db: Database, rules: Rules) -> str:
    """What becomes of the machine's lease without the machine. What an admin typed was typed for this one."""
    lease = db.leases[db.lease]
    return QUEUED if rules.moves and lease.kind != TYPED and lease.moves else FAILED


def _freed(db: Database, number: int, status: str) -> Database:
    """The lease without its machine. One that waits again needs another line if its own may have been used."""
    lease = db.leases[number]
    if status == QUEUED:
        used = lease.kind == DESKTOP and lease.status != ASSIGNED
        lease = lease._replace(moves=lease.moves - 1, needs_line=lease.needs_line or used)
    return _with(db, number, lease._replace(status=status, epoch=0, passed_over=lease.passed_over and status == QUEUED))


def _with_lease(db: Database, number: int, status: str, epoch: int = 0) -> Database:
    return _with(db, number, db.leases[number]._replace(status=status, epoch=epoch))


def _with(db: Database, number: int, lease: Lease) -> Database:
    return db._replace(leases=(*db.leases[:number], lease, *db.leases[number + 1 :]))


def _raised(epoch: int, rules: Rules) -> int:
    return epoch + 1 if rules.epoch_rises else epoch

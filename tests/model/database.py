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
    Database,
    Key,
    Message,
    Rules,
)


def assign(db: Database, rules: Rules) -> Database:
    """The longest waiting request gets the machine, if that is available."""
    waiting = [number for number, lease in enumerate(db.leases) if lease.status == QUEUED]
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
    """An assigned command that does not become active in time fails visibly."""
    if db.lease == NOBODY or db.leases[db.lease].status not in (ASSIGNED, CLAIMED):
        return db
    return _finish(db, db.lease, FAILED, rules)


def declare_lost(db: Database, rules: Rules) -> Database:
    """The sweep has heard nothing for too long: the lease fails and the machine is cut off."""
    if db.status in (LOST, BOOTING):
        return db
    freed = db if db.lease == NOBODY else _with_lease(db, db.lease, FAILED)
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
    if db.lease == NOBODY or db.leases[db.lease].status not in claimable:
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
    if db.lease == NOBODY or db.leases[db.lease].status != ASSIGNED:
        return db
    return _with_lease(db, db.lease, CLAIMED, db.epoch)


def _report(db: Database, message: Message, rules: Rules) -> Database:
    """A job that started and any command that is done make their lease active; anything else ends it as failed."""
    ours = db.lease == message.key.lease or not rules.epoch_checked
    if db.lease == NOBODY or not ours or db.leases[db.lease].status not in (CLAIMED, ACTIVE):
        return db
    if message.outcome not in (STARTED, DONE):
        return _finish(db, db.lease, FAILED, rules)
    db = _with_kind(db, DESKTOP if rules.kind_reported else JOB)
    if message.outcome == STARTED and db.leases[db.lease].kind == DESKTOP:
        return db
    return _with_lease(db, db.lease, ACTIVE, db.epoch)


def _with_kind(db: Database, kind: str) -> Database:
    """The machine's lease as one of this kind, if it was a typed line."""
    lease = db.leases[db.lease]
    known = lease._replace(kind=kind if lease.kind == TYPED else lease.kind)
    return db._replace(leases=(*db.leases[: db.lease], known, *db.leases[db.lease + 1 :]))


def _cleaned(db: Database) -> Database:
    return db._replace(status=AVAILABLE) if db.status == CLEANING else db


def _finish(db: Database, number: int, status: str, rules: Rules) -> Database:
    """A lease becomes terminal; if it had the machine, that goes to cleaning in the same transaction."""
    finished = _with_lease(db, number, status)
    if db.lease != number or not rules.one_transaction:
        return finished
    after = CLEANING if rules.cleaning else AVAILABLE
    return finished._replace(status=after, epoch=_raised(db.epoch, rules), lease=NOBODY)


def _with_lease(db: Database, number: int, status: str, epoch: int = 0) -> Database:
    lease = db.leases[number]._replace(status=status, epoch=epoch)
    return db._replace(leases=(*db.leases[:number], lease, *db.leases[number + 1 :]))


def _raised(epoch: int, rules: Rules) -> int:
    return epoch + 1 if rules.epoch_rises else epoch

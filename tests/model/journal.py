"""The machine's durable memory, and the questions asked of it."""

from .state import INTENT, NOBODY, UNKNOWN, Journal, Key, Rules


def verdict(journal: Journal, key: Key) -> str | None:
    """What is on record for a key."""
    return next((word for filed, word in journal.records if filed == key), None)


def written(journal: Journal, key: Key, word: str) -> Journal:
    """The journal with this record in place of an earlier one of the same key."""
    others = tuple(record for record in journal.records if record[0] != key)
    return journal._replace(records=(*others, (key, word)))


def open_intents_closed(journal: Journal) -> Journal:
    """Nobody knows how a command ended whose client died: it is never started again."""
    closed = tuple((key, UNKNOWN if word == INTENT else word) for key, word in journal.records)
    return journal._replace(records=closed)


def fenced(journal: Journal, epoch: int) -> Journal:
    """One durable write: the fence rises, what is below it is dropped, and no intent stays open above it."""
    above = tuple(record for record in journal.records if record[0].epoch > epoch)
    return open_intents_closed(Journal(max(epoch, journal.fence), above))


def begun_anew(key: Key) -> Journal:
    """After damage: whatever the lost records said, nothing up to the database's epoch starts again."""
    if key.lease == NOBODY:
        return Journal(key.epoch)
    return Journal(key.epoch - 1, ((key, UNKNOWN),))


def memory(journal: Journal) -> Key:
    """The highest (epoch, lease) the machine remembers; a fence remembers an epoch of nobody."""
    newest = max((key for key, _ in journal.records), default=Key(0))
    return newest if newest.epoch > journal.fence else Key(journal.fence)


def refuses(journal: Journal, key: Key, rules: Rules) -> bool:
    """Only what is newer than all that is remembered may start."""
    return rules.newest_only and memory(journal) != key and memory(journal).epoch >= key.epoch

"""The worlds in which the whole protocol is explored, and the smallest world in which each rule is missed."""

from typing import NamedTuple

from .state import DESKTOP, JOB, TYPED, Faults


class World(NamedTuple):
    """What may go wrong, beside crashes and lost answers at every step, and what the waiting people bring."""

    faults: Faults
    kinds: tuple[str, ...] = (DESKTOP, JOB)


WORLDS = {
    "lost twice": World(Faults(losses=2)),
    "lost, moved": World(Faults(losses=1, moves=1)),
    "lost, moved, a fresh line": World(Faults(losses=1, lines=1, moves=1), (DESKTOP,)),
    "a fresh line, somebody else waits": World(Faults(losses=0, lines=1)),
    "fresh lines, a write delayed": World(Faults(losses=0, lines=2, late_writes=1), (DESKTOP,)),
    "lost, a write delayed": World(Faults(losses=1, late_writes=1)),
    "lost, the journal damaged": World(Faults(losses=1, damages=1)),
    "lost, the database restored": World(Faults(losses=1, restores=1)),
    "lost, told its orders late": World(Faults(losses=1, tellings=2)),
    "lost, restored, told its orders late": World(Faults(losses=1, restores=1, tellings=1), (DESKTOP,)),
    "lost, restored, a typed line": World(Faults(losses=1, restores=1), (TYPED,)),
    "lost, restored, a write delayed": World(Faults(losses=1, late_writes=1, restores=1), (DESKTOP,)),
}

LARGE = {
    "fresh lines, a write delayed",
    "lost, a write delayed",
    "lost, restored, a write delayed",
    "lost, the database restored",
}
"""More than half of all states: most of two minutes of processor together, so they are for whoever has the time."""

CALM = World(Faults(losses=0))
DAMAGED = World(Faults(losses=0, damages=1))
RESTORED = World(Faults(losses=0, restores=1))
TOLD = World(Faults(losses=0, tellings=1))
LINE = World(Faults(losses=0), (TYPED,))
MOVING = World(Faults(losses=1, moves=1))
RESTORED_ALONE = World(Faults(losses=0, restores=1), (DESKTOP,))

BREAKS = {
    "cleaning": ("I3", CALM),
    "one_transaction": ("I6", CALM),
    "epoch_rises": ("served", CALM),
    "epoch_checked": ("I9", CALM),
    "claim_repeats": ("rest", CALM),
    "polls": ("rest", CALM),
    "epoch_jumps": ("I3", RESTORED_ALONE),
    "journal": ("I2", CALM),
    "intent_first": ("I2", CALM),
    "recover_before_poll": ("I2", CALM),
    "retry_unknown": ("I2", CALM),
    "wipe_fences_intents": ("I5", RESTORED_ALONE),
    "fence_before_erase": ("I5", RESTORED_ALONE),
    "newest_only": ("I3", RESTORED),
    "damage_fences": ("I2", DAMAGED),
    "reports_again": ("rest", RESTORED_ALONE),
    "news_only": ("I7", TOLD),
    "one_client": ("I2", CALM),
    "kind_reported": ("I5", LINE),
    "child_dies": ("I3", CALM),
    "moves": ("kept", MOVING),
}
"""For each rule: the promise that breaks first without it, and where."""

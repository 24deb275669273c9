"""Small rehearsals in which everything goes wrong that can: the rules must hold in each."""

import random

from allocator.rehearsal.outcome import Rehearsed
from allocator.rehearsal.plan import Habits, Mishaps, Plan
from allocator.rehearsal.play import play
from client.network import Connection


async def tried(owner: Connection, plan: Plan, strict: bool = True) -> Rehearsed:
    """What comes of the plan; the database is as it was afterwards. `strict`: every rule is looked at all along."""
    whole = owner.transaction()
    await whole.start()
    try:
        return await play(owner, plan, strict=strict)
    finally:
        await whole.rollback()


def trial(seed: int) -> Plan:
    """A plan that this seed alone decides."""
    chance = random.Random(seed)
    return Plan(
        people=chance.randint(3, 8),
        arrive_seconds=chance.choice((0, 60, 300)),
        machines=chance.randint(1, 4),
        boot_seconds=chance.choice((5, 60)),
        use_seconds=chance.choice((30, 120, 240)),
        lease_seconds=chance.choice((120, 300)),
        extend_seconds=chance.choice((0, 90)),
        keep_seconds=chance.choice((30, 120)),
        queue_seconds=chance.choice((900, 3600)),
        spread=1.0,
        mishaps=_mishaps(chance),
        habits=_habits(chance),
        tick_seconds=10.0,
        seed=seed,
        groups=chance.choice((0, 0, 2, 3)),
    )


def _mishaps(chance: random.Random) -> Mishaps:
    return Mishaps(
        deaths_an_hour=chance.choice((0, 200, 1000)),
        reboots_an_hour=chance.choice((0, 300, 1000)),
        failing=chance.choice((0, 10, 40)),
        slow=chance.choice((0, 30)),
        unhealthy=chance.choice((0, 50, 100)),
        away_seconds=chance.choice((0, 60, 200)),
    )


def _habits(chance: random.Random) -> Habits:
    return Habits(
        desktops=chance.choice((0, 50, 100)),
        lineless=chance.choice((0, 30)),
        leaving=chance.choice((0, 30)),
        forgetting=chance.choice((0, 30)),
        extending=chance.choice((0, 50)),
    )

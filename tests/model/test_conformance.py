"""The SQL does to its rows what the model does to its own, call by call."""

import random

import pytest

from tests.sql.steps import machine
from tests.support.database import Database

from .mirror import Mirror
from .state import ACTIVE, ASSIGNED, BOOTING, CANCELLED, CLAIMED, ENDED, FAILED, NOBODY, QUEUED
from .state import Database as Rows

CALLS = 1500
LIMITS = """
    INSERT INTO groups VALUES ('both', 1);
    INSERT INTO members SELECT unnest(ARRAY['ada@example.org', 'bob@example.org']), 'both';
    UPDATE pools SET price_per_hour = 1, budget = 1e6;
"""
"""With one machine a quota of one and more money than it can cost change nothing, but all goes by way of them."""


@pytest.mark.parametrize(("seed", "limits"), [(0, "SELECT"), (1, "SELECT"), (2, LIMITS)])
async def test_after_every_call_the_database_says_what_the_model_says(
    database: Database, seed: int, limits: str
) -> None:
    chance = random.Random(seed)
    owner = await database.connect("lablink")
    await owner.execute("UPDATE pools SET programs = '{true}', restart_on_move = true")
    await owner.execute(limits)
    await owner.execute("ALTER TABLE events DISABLE TRIGGER events_guard_trigger")  # the mirror lets minutes pass
    mirror = Mirror(database, owner, await machine(database, status="booting"), chance, Rows(BOOTING, 0, NOBODY, ()))
    seen = set()
    for number in range(CALLS):
        await mirror.ask()
        call = chance.choice(mirror.calls())
        await call()
        assert await mirror.read() == mirror.model, f"call {number} was {call.__name__}"
        seen |= {lease.status for lease in mirror.model.leases}
    assert seen == {QUEUED, ASSIGNED, CLAIMED, ACTIVE, ENDED, FAILED, CANCELLED}

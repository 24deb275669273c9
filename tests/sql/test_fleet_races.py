"""Claim, expiry and shrink at the same moment, hundreds of times: no machine is both given out and removed."""

import asyncio
from contextlib import suppress
from itertools import count

import asyncpg

from tests.sql.steps import ask, connections, machines
from tests.support.database import Database

ROUNDS = 300
MACHINES = 6
GONE_WITH_A_PERSON = "SELECT count(*) FROM leases WHERE failure = 'vm-deleted'"

BEGIN_AGAIN = """
    UPDATE vms SET status = 'booting' WHERE status = 'retired';
    UPDATE vms SET draining = false, status = CASE status WHEN 'booting' THEN 'cleaning' ELSE status END;
    UPDATE vms SET status = 'available', cleaned_epoch = epoch WHERE status = 'cleaning';
    UPDATE fleet_vms SET wanted = true;
    UPDATE leases SET status = 'cancelled' WHERE status = 'queued';
"""
TO_EXPIRE = """
    UPDATE leases SET status = 'claimed' WHERE status = 'assigned';
    UPDATE leases SET status = 'active', started_at = clock(), expires_at = clock() - interval '1 second'
    WHERE status = 'claimed';
"""
"""Those of the round before have a machine whose time is up."""

REMOVED = "SELECT hostname FROM fleet_vms WHERE NOT wanted"
LENT = "SELECT hostname FROM vms WHERE status = 'in-use'"


async def shrink(connection: asyncpg.Connection) -> None:
    """Lets two go, or none when too few are idle at this moment."""
    with suppress(asyncpg.PostgresError):
        await connection.execute("SELECT shrink_fleet(2)")


async def test_a_machine_is_never_both_given_out_and_removed(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await machines(database, MACHINES)
    await owner.execute("INSERT INTO fleet_vms (hostname) SELECT hostname FROM vms")
    await service.execute("SELECT ensure_pool('default', true, '{true}', 600, 90, 600)")
    askers, (sweep, other) = await connections(database, 4), await connections(database, 2)
    shrinker, replacer = await connections(database, 2, "lablink")
    people = (f"p{n}@example.org" for n in count())
    outcomes: set[tuple[int, int]] = set()

    for number in range(ROUNDS):
        await owner.execute(BEGIN_AGAIN)
        await owner.execute(TO_EXPIRE)
        await owner.execute("UPDATE vm_heartbeats SET seen_at = clock()")
        taken = f"vm-{number % MACHINES + 1}"
        _, _, _, replaced, *_ = await asyncio.gather(
            sweep.execute("SELECT sweep_deadlines()"),
            other.execute("SELECT sweep_queue()"),
            shrink(shrinker),
            replacer.fetchval("SELECT retire_idle_vms($1)", [taken]),
            *(ask(asker, next(people), argv=["true"]) for asker in askers),
        )

        removed = {row[0] for row in await owner.fetch(REMOVED)} | (set() if replaced else {taken})
        lent = {row[0] for row in await owner.fetch(LENT)}
        assert not removed & lent, f"round {number}"
        outcomes.add((len(removed), len(lent)))

    assert await owner.fetchval(GONE_WITH_A_PERSON) == 0
    assert len(outcomes) > 3, "the races were none"

"""Requests, ends and scaling at the same moment, hundreds of times: nobody loses the machine that they were given."""

import asyncio
import json
from itertools import count

import asyncpg
import pytest

from tests.sql.steps import ask, connections, machines, refused, waits_for_a_lock
from tests.sql.test_scaling import scale, sized
from tests.support.database import Database

ROUNDS = 300
MACHINES = 6

BEGIN_AGAIN = """
    UPDATE vms SET status = 'booting' WHERE status = 'retired';
    UPDATE vms SET draining = false, status = CASE status WHEN 'booting' THEN 'cleaning' ELSE status END;
    UPDATE vms SET status = 'cleaning' WHERE status = 'in-use' AND id % 2 = 0;
    UPDATE vms SET status = 'available', cleaned_epoch = epoch WHERE status = 'cleaning';
    UPDATE leases SET status = 'cancelled' WHERE status = 'queued';
    UPDATE vm_heartbeats SET seen_at = clock();
    UPDATE pool_scaling SET booked_until = NULL, leaving = '{}';
"""


async def scale_down(connection: asyncpg.Connection) -> set[str]:
    """What `lablink up` and the fleet do: ask, and retire what is to go. Returns those that went."""
    _, leaving = await scale(connection)
    held = await connection.fetchval("SELECT retire_idle_vms($1)", leaving)
    return set() if held else set(leaving)


@pytest.mark.timeout(300)  # hundreds of rounds
async def test_nobody_loses_a_machine_to_a_pool_that_shrinks(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await machines(database, MACHINES)
    await sized(owner, spare=0, after=0)
    await service.execute("SELECT ensure_pool('default', true, '{true}', 600, 90, 600)")
    askers, (sweep,) = await connections(database, 3), await connections(database, 1)
    shrinkers = await connections(database, 2, "lablink")
    people = (f"p{n}@example.org" for n in count())
    await scale(owner)  # whoever comes first begins what is remembered of the pool, and others wait for that
    outcomes: set[tuple[int, int]] = set()

    for number in range(ROUNDS):
        await owner.execute(BEGIN_AGAIN)
        asking = [ask(asker, next(people), argv=["true"]) for asker in askers]
        (gone, more), *_ = await asyncio.gather(
            asyncio.gather(*map(scale_down, shrinkers)), sweep.execute("SELECT sweep_queue()"), *asking
        )
        gone |= more

        lent = {row[0] for row in await owner.fetch("SELECT hostname FROM vms WHERE status = 'in-use'")}
        assert not gone & lent, f"round {number}"
        outcomes.add((len(gone), len(lent)))

    assert await owner.fetchval("SELECT count(*) FROM leases WHERE moves > 0 OR status = 'failed'") == 0
    assert len(outcomes) > 3, "the races were none"


LOCK_POOLS = "SELECT FROM pools FOR NO KEY UPDATE NOWAIT"
SCALED_NO_MORE = "UPDATE pools SET max_machines = NULL"


async def test_who_waits_for_a_machine_that_was_to_go_holds_no_pool_meanwhile(
    database: Database, owner: asyncpg.Connection
) -> None:
    await sized(owner, spare=0, after=0)
    await machines(database, 2)
    assert len((await scale(owner))[1]) == 2
    [holding] = await connections(database, 1, "lablink")
    [watching] = await connections(database, 1, "lablink")

    async with holding.transaction():
        await holding.execute("SELECT FROM vms WHERE hostname = 'vm-2' FOR UPDATE")
        changing = asyncio.create_task(owner.execute(SCALED_NO_MORE))
        await waits_for_a_lock(watching, owner)
        await holding.execute(LOCK_POOLS)
    await changing

    assert not await owner.fetchval("SELECT bool_or(draining) FROM vms")


async def test_who_would_wait_for_a_machine_that_began_to_go_at_this_moment_is_told_to_try_again(
    database: Database, owner: asyncpg.Connection
) -> None:
    await sized(owner, spare=0, after=0)
    await machines(database, 1)
    holding, watching, scaling = await connections(database, 3, "lablink")

    async with holding.transaction():
        async with watching.transaction():
            await watching.execute("SELECT FROM pools FOR SHARE")
            changing = asyncio.create_task(owner.execute(SCALED_NO_MORE))
            await waits_for_a_lock(watching, owner)
            assert (await scale(scaling))[1] == ["vm-1"]
            await holding.execute("SELECT FROM vms FOR UPDATE")
        with refused("55P03"):
            await changing

    await owner.execute(SCALED_NO_MORE)
    assert not await owner.fetchval("SELECT draining FROM vms")


async def test_a_service_whose_settings_are_those_of_its_pool_waits_for_no_machine(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await sized(owner, spare=0, after=0)
    await machines(database, 1)
    assert (await scale(owner))[1] == ["vm-1"]
    await service.execute("SET lock_timeout = '1s'")

    async with owner.transaction():
        await owner.execute("SELECT FROM vms FOR UPDATE")
        settings = json.dumps({"max_machines": 10, "lease_seconds": 60})
        await service.execute("SELECT ensure_settings('default', $1)", settings)

    assert await owner.fetchval("SELECT lease_seconds FROM pools") == 60

"""A workshop is rehearsed in seconds, by the rules that will hold in it."""

import pytest

from allocator.rehearsal.outcome import Rehearsed
from allocator.rehearsal.plan import Habits, Mishaps, Plan
from allocator.rehearsal.play import rehearse
from allocator.rehearsal.stage import staged
from allocator.upkeep.scratch import scratch_database
from tests.rehearsal.trials import tried
from tests.support.database import Database

IN_GROUPS = Plan(16, 60, 4, 5, 300, 1200, groups=3)
FIRST_COME_FIRST_SERVED = """
    CREATE OR REPLACE FUNCTION fair_queue(p_pool text, p_most integer DEFAULT NULL)
    RETURNS TABLE (id uuid, "position" bigint, held_back text) LANGUAGE sql STABLE ROWS 10 AS $$
        SELECT l.id, row_number() OVER (ORDER BY l.place), NULL
        FROM leases l WHERE l.pool = p_pool AND l.status = 'queued' AND NOT l.passed_over
    $$
"""


async def rehearsed(database: Database, plan: Plan) -> Rehearsed:
    async with scratch_database(database.dsn("lablink"), "rehearsal") as dsn:
        return await rehearse(dsn, plan)


async def test_everybody_is_served_where_machines_are_enough(database: Database) -> None:
    came = await rehearsed(database, Plan(20, 60, 20, 30, 600, 3600))
    assert (len(came.waits), came.unserved, came.broken) == (20, 0, [])
    assert came.waits[-1] <= 60
    assert came.course[-1].lent == 0


async def test_the_same_seed_gives_the_same_and_another_one_another(database: Database) -> None:
    mishaps, habits = Mishaps(deaths_an_hour=200, failing=20), Habits(desktops=50, lineless=20, leaving=20)
    plans = [Plan(12, 60, 4, 30, 300, 1200, mishaps=mishaps, habits=habits, seed=seed) for seed in (1, 1, 2)]
    first, again, other = [await rehearsed(database, plan) for plan in plans]
    assert first == again != other


@pytest.mark.parametrize("seed", range(3))
async def test_who_waits_is_served_in_the_end_and_machines_that_die_lose_nobody(database: Database, seed: int) -> None:
    plan = Plan(40, 60, 15, 60, 900, 3600, mishaps=Mishaps(deaths_an_hour=60), seed=seed)
    came = await rehearsed(database, plan)
    assert (len(came.waits), came.unserved, came.broken) == (40, 0, [])
    assert came.busiest >= 20
    assert came.moved > 0


async def test_while_the_allocator_is_away_nobody_is_lost(database: Database) -> None:
    came = await rehearsed(database, Plan(20, 60, 20, 5, 300, 3600, mishaps=Mishaps(away_seconds=120)))
    assert (len(came.waits), came.unserved, came.broken) == (20, 0, [])
    assert came.seconds >= 150


async def test_a_machine_that_is_kept_for_somebody_who_brings_no_line_is_anothers_in_the_end(
    database: Database,
) -> None:
    came = await rehearsed(
        database, Plan(6, 5, 2, 5, 60, 600, keep_seconds=60, queue_seconds=1200, habits=Habits(100, lineless=100))
    )
    assert came.failed["no-line"] > 0
    assert (len(came.waits), came.broken) == (6, [])


async def test_who_is_not_done_makes_the_lease_longer_unless_somebody_waits(database: Database) -> None:
    plan = Plan(4, 5, 4, 5, 900, 600, extend_seconds=300, spread=0.0, habits=Habits(extending=100))
    alone = await rehearsed(database, plan)
    assert alone.seconds >= 900
    crowd = await rehearsed(
        database, Plan(8, 5, 4, 5, 900, 600, extend_seconds=300, spread=0.0, habits=Habits(extending=100))
    )
    assert crowd.waits[-1] <= 700


async def test_where_servers_compile_statements_a_rehearsal_waits_for_none(database: Database) -> None:
    await (await database.connect()).execute(f"ALTER DATABASE {database.name} SET jit = on")
    async with staged(database.dsn("lablink")) as owner:
        assert await owner.fetchval("SHOW jit") == "off"


async def test_people_of_groups_have_their_turn_and_it_is_told_how_long_each_group_waited(database: Database) -> None:
    came = await rehearsed(database, IN_GROUPS)
    largest, *others = came.groups.values()
    assert len(came.groups) == 3 and all(len(largest) > len(other) for other in others)
    assert sorted(wait for waits in came.groups.values() for wait in waits) == came.waits
    assert len(came.waits) == 16 and came.broken == []
    assert largest[-1] > max(wait for other in others for wait in other)


async def test_a_queue_that_gives_no_group_its_turn_is_said_to_break_a_rule(database: Database) -> None:
    async with staged(database.dsn("lablink")) as owner:
        await owner.execute(FIRST_COME_FIRST_SERVED)
        unfair = await tried(owner, IN_GROUPS, strict=False)
    assert any(said.startswith("fair: group-1 was given its machine number") for said in unfair.broken)

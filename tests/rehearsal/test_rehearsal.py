"""A workshop is rehearsed in seconds, by the rules that will hold in it."""

import pytest

from allocator.rehearsal.outcome import Rehearsed
from allocator.rehearsal.plan import Habits, Mishaps, Plan
from allocator.rehearsal.play import rehearse
from allocator.rehearsal.stage import staged
from allocator.upkeep.scratch import scratch_database
from tests.support.database import Database


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
    came = await rehearsed(database, Plan(6, 5, 2, 5, 60, 600, keep_seconds=60, habits=Habits(100, lineless=100)))
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

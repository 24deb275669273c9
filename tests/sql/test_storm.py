"""Everybody against everybody: whatever the order, nothing breaks and every lease ends up consistent."""

from collections.abc import Callable

import asyncpg
import pytest

from tests.sql.promises import broken, facts
from tests.sql.storm import LIMIT_SECONDS, storm
from tests.support.database import Database

pytestmark = pytest.mark.timeout(LIMIT_SECONDS + 100)


async def nothing_is_broken(owner: asyncpg.Connection) -> bool:
    assert await owner.fetch("SELECT * FROM broken_invariants()") == []
    assert broken(await facts(owner)) == []
    return True


async def test_nothing_breaks_and_nobody_blocks_another_when_everybody_uses_the_functions_at_once(
    database: Database, owner: asyncpg.Connection, record_property: Callable[[str, object], None]
) -> None:
    ours = await storm(database, rounds=200, by_hand=0)

    record_property("done", dict(ours.done))
    record_property("refusals", dict(ours.refusals))
    assert await nothing_is_broken(owner)
    assert ours.deadlocks == {}


async def test_nothing_breaks_when_admins_write_statements_of_their_own_at_the_same_time(
    database: Database, owner: asyncpg.Connection, record_property: Callable[[str, object], None]
) -> None:
    """Whoever changes a lease by hand locks it before its machine, so two may block each other: one tries again."""
    ours = await storm(database, rounds=200, by_hand=2)

    record_property("done", dict(ours.done))
    record_property("deadlocks", dict(ours.deadlocks))
    assert await nothing_is_broken(owner)
    assert sum(ours.deadlocks.values()) < sum(ours.done.values()) / 50


LIMITED = """
    INSERT INTO groups VALUES ('few', 1), ('some', 2), ('all', NULL);
    INSERT INTO members SELECT 'u' || n || '@example.org', (ARRAY['few', 'some', 'all'])[n / 2 + 1]
    FROM generate_series(0, 5) AS n;
    INSERT INTO shares VALUES ('default', 'all', 3);
    UPDATE pools SET price_per_hour = 1, budget = 6;
"""
"""Of the eight people who ask six are in groups that have too little; six leases of an hour are paid for at a time."""


async def test_no_limit_is_broken_and_nobody_blocks_another_where_groups_compete_for_what_is_paid_for(
    database: Database, owner: asyncpg.Connection, record_property: Callable[[str, object], None]
) -> None:
    await owner.execute(LIMITED)

    ours = await storm(database, rounds=200, by_hand=0)

    record_property("done", dict(ours.done))
    record_property("refusals", dict(ours.refusals))
    assert await nothing_is_broken(owner)
    assert await owner.fetchval("SELECT spent + promised <= budget FROM pool_spending")
    assert ours.deadlocks == {}
    await ours.settle(owner)
    assert await nothing_is_broken(owner)


async def test_after_the_storm_no_free_machine_stands_beside_somebody_who_waits(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    ours = await storm(database, rounds=30, by_hand=1)

    await ours.settle(owner)

    queued = await owner.fetchval("SELECT count(*) FROM leases WHERE status = 'queued' AND NOT passed_over")
    assert await nothing_is_broken(owner)
    assert min(queued, await service.fetchval("SELECT unassigned_vms_count()")) == 0

"""The last machine of a quota, the last money of a budget, for which many reach at once; turns, however people come."""

import asyncio
from collections import Counter
from random import Random

import asyncpg
import pytest

from tests.sql.steps import ask, connections, lent, machines
from tests.support.database import Database

ROUNDS = 40
MANY = 1000
END_ALL = "SELECT end_lease(id) FROM leases WHERE live"
CLEAN = "UPDATE vms SET cleaned_epoch = epoch, status = 'available' WHERE status = 'cleaning'"
NEXT = (
    "SELECT id, group_name FROM queue_places JOIN leases USING (id) WHERE held_back IS NULL ORDER BY position LIMIT 1"
)


async def begin_anew(owner: asyncpg.Connection) -> None:
    """Nobody has or awaits a machine, and all are clean."""
    await owner.execute(END_ALL)
    await owner.execute(CLEAN)


async def test_of_two_who_reach_for_the_last_machine_of_their_group_in_two_pools_one_waits(
    database: Database, owner: asyncpg.Connection
) -> None:
    await owner.execute("INSERT INTO pools (name) VALUES ('gpu')")
    await owner.execute("INSERT INTO groups VALUES ('biology', 1)")
    await owner.execute("INSERT INTO members VALUES ('a@example.org', 'biology'), ('b@example.org', 'biology')")
    await database.vm("vm-1")
    await database.vm("gpu-1", pool="gpu")
    one, two = await connections(database, 2)

    for _ in range(ROUNDS):
        await asyncio.gather(ask(one, "a@example.org"), ask(two, "b@example.org", pool="gpu"))
        assert await owner.fetchval("SELECT count(*) FROM leases WHERE live AND vm_id IS NOT NULL") == 1
        assert await owner.fetchval("SELECT count(*) FROM leases WHERE status = 'queued'") == 1
        await begin_anew(owner)


async def test_of_those_who_reach_for_the_last_of_a_budget_one_is_let_in(
    database: Database, owner: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE pools SET price_per_hour = 1, lease_seconds = 3600, budget = 2.5")
    people = await connections(database, 4)

    for _ in range(ROUNDS):
        asked = (ask(person, f"p{n}@example.org") for n, person in enumerate(people))
        answers = await asyncio.gather(*asked, return_exceptions=True)
        refusals = [each.sqlstate for each in answers if isinstance(each, asyncpg.PostgresError)]
        assert refusals == ["LL013", "LL013"]
        await begin_anew(owner)


async def test_whoever_asks_and_whoever_makes_a_lease_longer_do_not_spend_the_same_money(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await lent(database, service)
    await owner.execute("UPDATE pools SET price_per_hour = 1, lease_seconds = 3600, extend_seconds = 3600")
    await owner.execute("UPDATE leases SET expires_at = clock() + interval '1 hour' WHERE id = $1", lease)
    asks, extends = await connections(database, 2)
    done: Counter[str] = Counter()

    for n in range(ROUNDS):
        await owner.execute("UPDATE pools SET budget = (SELECT spent + promised + 1.5 FROM pool_spending)")
        both = {"asked": ask(asks, "bob@example.org"), "longer": extends.execute("SELECT extend_lease($1)", lease)}
        names = sorted(both, reverse=n % 2 == 0)
        answers = await asyncio.gather(*(both[name] for name in names), return_exceptions=True)
        went = [name for name, each in zip(names, answers, strict=True) if not isinstance(each, asyncpg.PostgresError)]
        assert len(went) == 1
        done += Counter(went)
        assert await owner.fetchval("SELECT spent + promised <= budget FROM pool_spending")
        await owner.execute("SELECT end_lease(id) FROM leases WHERE status = 'queued'")
        await owner.execute("UPDATE leases SET expires_at = clock() + interval '1 hour' WHERE id = $1", lease)

    assert min(done["asked"], done["longer"]) > 0


@pytest.mark.parametrize("seed", range(10))
async def test_machines_are_shared_as_equally_as_can_be_and_nobody_is_passed_by_for_ever(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, seed: int
) -> None:
    """Whoever is served is of a group that has least, of those which may have more; at the end everybody was."""
    chance = Random(seed)
    groups = [f"g{n}" for n in range(chance.randint(2, 4))]
    limits = {group: limit for group in groups if (limit := chance.choice([None, None, 1, 2]))}
    for group in groups:
        await owner.execute("INSERT INTO groups VALUES ($1, $2)", group, limits.get(group))
    await machines(database, chance.randint(2, 5))
    people = await _people(owner, groups, chance)

    for email in people:
        await ask(service, email)
    while (waiting := await owner.fetchval("SELECT count(*) FROM leases WHERE status = 'queued'")) > 0:
        await _give_back_one(owner, chance)
        before, due = await _machines_by_group(owner), await owner.fetchrow(NEXT)
        await service.execute("SELECT sweep_queue()")
        if due:
            may = [group for group in before if before[group] < limits.get(group, MANY)]
            assert before[due["group_name"] or ""] == min(before[group] for group in may)
            assert await owner.fetchval("SELECT status FROM leases WHERE id = $1", due["id"]) == "assigned"
        assert await owner.fetchval("SELECT count(*) FROM leases WHERE status = 'queued'") in (waiting, waiting - 1)

    assert await owner.fetchval("SELECT count(*) FROM leases WHERE assigned_at IS NOT NULL") == len(people)


async def _people(owner: asyncpg.Connection, groups: list[str], chance: Random) -> list[str]:
    """Some of each group and some of none, in the order in which they come."""
    people = [f"p{n}@example.org" for n in range(chance.randint(5, 14))]
    for email in people:
        if group := chance.choice([*groups, None]):
            await owner.execute("INSERT INTO members (email, group_name) VALUES ($1, $2)", email, group)
    return people


async def _give_back_one(owner: asyncpg.Connection, chance: Random) -> None:
    """Somebody gives a machine back; it is clean and nobody's yet."""
    held = await owner.fetch("SELECT id FROM leases WHERE live AND vm_id IS NOT NULL ORDER BY place")
    await owner.execute("SELECT end_lease($1)", chance.choice(held)["id"])
    await owner.execute(CLEAN)


async def _machines_by_group(owner: asyncpg.Connection) -> dict[str, int]:
    """How many machines each group has of which somebody waits; those of none are the group ''."""
    rows = await owner.fetch(
        "SELECT coalesce(q.group_name, '') AS name, machines_of('default', q.group_name) AS machines "
        "FROM leases q WHERE q.status = 'queued' GROUP BY q.group_name"
    )
    return {row["name"]: row["machines"] for row in rows}

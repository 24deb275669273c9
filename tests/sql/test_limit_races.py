"""Requests and ends of leases at once: nobody has more live ones than they may, also after limits were changed."""

import asyncio
from collections.abc import Coroutine
from random import Random
from typing import TypeVar

import asyncpg
import pytest

from tests.sql.steps import ADA, ask, connections, machines, refused
from tests.support import LIMIT_SECONDS
from tests.support.database import Database

Answer = TypeVar("Answer")

ROUNDS = 40
END = "SELECT end_lease((SELECT id FROM leases WHERE live AND seat = $1))"
SEATS = "SELECT array_agg(seat ORDER BY seat) FROM leases WHERE live"


async def done_or_waiting(
    watching: asyncpg.Connection, connection: asyncpg.Connection, doing: Coroutine[None, None, Answer]
) -> "asyncio.Task[Answer]":
    """What is done over this connection, once it is done or waits for a lock."""
    task = asyncio.create_task(doing)
    async with asyncio.timeout(LIMIT_SECONDS):
        while not task.done() and not await watching.fetchval(
            "SELECT cardinality(pg_blocking_pids($1)) > 0", connection.get_server_pid()
        ):
            pass
    return task


async def seated(owner: asyncpg.Connection, limit: int) -> None:
    """Ada has three leases in a pool that let each have three, and lets each have as many as that now."""
    await owner.execute("UPDATE pools SET per_person = 3")
    for _ in range(3):
        await ask(owner)
    await owner.execute("UPDATE pools SET per_person = $1", limit)


@pytest.mark.parametrize("limit", [1, 2])
async def test_who_has_more_than_they_may_opens_none_while_one_ends(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, limit: int
) -> None:
    await seated(owner, limit)
    ending = await database.connect()

    async with ending.transaction():
        await ending.execute(END, "default/3")
        asking = await done_or_waiting(owner, service, ask(service))

    assert (await asking)["outcome"] == "live"
    assert await owner.fetchval(SEATS) == ["default/1", "default/2"]


async def test_who_has_as_many_as_they_may_since_a_limit_was_lowered_opens_one_when_one_ends_and_not_two(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await seated(owner, 2)
    await owner.execute(END, "default/2")
    [asking], ending = await connections(database, 1), await database.connect()

    async with asking.transaction():
        async with ending.transaction():
            await ending.execute(END, "default/3")
            first = await done_or_waiting(owner, asking, ask(asking))
        await first
        assert (await ask(service))["outcome"] == "created"

    assert await owner.fetchval(SEATS) == ["default/1", "default/2"]


async def test_a_lease_that_does_not_count_stays_while_another_opens_that_does_as_it_is_there(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("INSERT INTO pools (name) VALUES ('gpu')")
    await ask(service, pool="gpu")
    await owner.execute("UPDATE pools SET per_person = 2 WHERE name = 'gpu'")
    [asking], ending = await connections(database, 1), await database.connect()

    async with asking.transaction():
        assert (await ask(asking))["outcome"] == "created"
        ended = await done_or_waiting(owner, ending, ending.execute(END, ""))
        with refused("40001"):
            await ask(service)
    await ended

    assert (await ask(service))["outcome"] == "live"
    assert await owner.fetchval(SEATS) == ["/2"]


@pytest.mark.parametrize("seed", range(4))
async def test_however_limits_change_no_request_goes_beyond_them(
    database: Database, owner: asyncpg.Connection, seed: int
) -> None:
    dice = Random(seed)
    await owner.execute("INSERT INTO pools (name) VALUES ('gpu')")
    people = await connections(database, 4)

    for number in range(ROUNDS):
        for pool in ("default", "gpu"):
            await owner.execute("UPDATE pools SET per_person = $1 WHERE name = $2", dice.randint(1, 3), pool)
        live = {row["id"]: row["pool"] for row in await owner.fetch("SELECT id, pool FROM leases WHERE live")}
        ends = dice.sample(sorted(live), min(len(live), 2))
        asked = [ask(each, pool=dice.choice(("default", "gpu"))) for each in people[len(ends) :]]
        doing = [each.execute("SELECT end_lease($1)", lease) for each, lease in zip(people, ends, strict=False)]
        done = await asyncio.gather(*doing, *asked, return_exceptions=True)
        odd = [each for each in done if isinstance(each, Exception)]
        assert all(isinstance(each, asyncpg.SerializationError) for each in odd), odd
        assert await over(owner, [lease for lease in live if lease not in ends]) == [], f"round {number}"


async def over(owner: asyncpg.Connection, stayed: list[object]) -> list[asyncpg.Record]:
    """Of which pools somebody opened one although they had as many already, without those that ended."""
    return list(
        await owner.fetch(
            "SELECT * FROM (SELECT CASE p.per_person WHEN 1 THEN '' ELSE p.name END AS of, min(p.per_person) AS may, "
            "count(*) AS has, count(*) FILTER (WHERE l.id = ANY ($1)) AS had "
            "FROM leases l JOIN pools p ON p.name = l.pool WHERE l.live GROUP BY 1) AS limits "
            "WHERE has > greatest(may, had)",
            stayed,
        )
    )


async def test_who_is_lent_machines_by_hand_has_no_more_than_they_may(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await machines(database, 4)
    await owner.execute("UPDATE pools SET per_person = 3")
    await ask(service)

    await owner.execute("UPDATE vms SET status = 'in-use', email = $1 WHERE hostname IN ('vm-2', 'vm-3')", ADA)
    with refused("LL003"):
        await owner.execute("UPDATE vms SET status = 'in-use', email = $1 WHERE hostname = 'vm-4'", ADA.upper())
    with pytest.raises(asyncpg.UniqueViolationError):
        await owner.execute("INSERT INTO leases (email, kind) VALUES ($1, 'job')", ADA)

    assert await owner.fetchval(SEATS) == ["default/1", "default/2", "default/3"]


async def test_machines_that_an_admin_takes_for_nobody_are_counted_by_no_limit(
    database: Database, owner: asyncpg.Connection
) -> None:
    await machines(database, 2)

    await owner.execute("UPDATE vms SET status = 'in-use'")

    assert await owner.fetchval(SEATS) == ["", ""]


async def test_who_is_lent_a_machine_by_hand_while_another_lease_changes_is_lent_it_at_the_next_try(
    database: Database, owner: asyncpg.Connection
) -> None:
    await machines(database, 1)
    await seated(owner, 2)
    await owner.execute(END, "default/1")
    await owner.execute(END, "default/2")
    changing = await database.connect()
    lend = "UPDATE vms SET status = 'in-use', email = $1 WHERE status <> 'in-use'"

    async with changing.transaction():
        await changing.execute("SELECT FROM leases WHERE live FOR UPDATE")
        await owner.execute("UPDATE vms SET status = 'available', cleaned_epoch = epoch WHERE status = 'cleaning'")
        with refused("40001"):
            await owner.execute(lend, ADA)

    await owner.execute(lend, ADA)
    assert await owner.fetchval(SEATS) == ["default/1", "default/3"]

"""How long a lease lasts, and how much longer its holder may make it."""

from datetime import timedelta

import asyncpg
import pytest

from tests.sql.steps import ADA, BOB, CYD, ask, lease_of, lent, machine, refused
from tests.support.database import Database


@pytest.fixture(autouse=True)
async def terms(owner: asyncpg.Connection) -> None:
    """Two hours as a rule, one more at a time, four in all."""
    await owner.execute("UPDATE pools SET lease_seconds = 7200, extend_seconds = 3600, longest_seconds = 14400")


async def test_a_lease_is_made_longer_step_by_step_and_no_longer_than_its_pool_allows(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await lent(database, service)
    began = (await lease_of(owner, lease))["expires_at"]
    ends = [await service.fetchval("SELECT extend_lease($1)", lease) for _ in range(2)]
    assert [end - began for end in ends] == [timedelta(hours=1), timedelta(hours=2)]
    with refused("LL012"):
        await service.execute("SELECT extend_lease($1)", lease)
    assert await owner.fetchval("SELECT count(*) FROM events WHERE kind = 'lease.extended' AND actor = 'web'") == 2


async def test_while_somebody_waits_a_lease_lasts_as_long_as_any(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await lent(database, service)
    offered = "SELECT extensible_until IS NOT NULL FROM lease_views WHERE id = $1"
    assert await owner.fetchval(offered, lease)
    waits = (await ask(service, BOB))["lease_id"]
    assert not await owner.fetchval(offered, lease)
    with refused("LL012"):
        await service.execute("SELECT extend_lease($1)", lease)
    await service.execute("SELECT end_lease($1)", waits)
    assert await service.fetchval("SELECT extend_lease($1)", lease)


async def test_nobodys_lease_ends_sooner_for_whoever_could_not_have_the_machine(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("INSERT INTO groups VALUES ('biology', 1)")
    await owner.execute("INSERT INTO members VALUES ($1, 'biology'), ($2, 'biology')", BOB, CYD)
    _, adas = await lent(database, service)
    other = await machine(database, "vm-2")
    await ask(service, BOB)
    bobs = await other.run()
    await ask(service, CYD)  # whose group has what it may have

    offered = "SELECT extensible_until IS NOT NULL FROM lease_views WHERE id = $1"
    assert [await owner.fetchval(offered, lease) for lease in (adas, bobs)] == [True, False]
    assert await service.fetchval("SELECT extend_lease($1)", adas)
    with refused("LL012"):
        await service.execute("SELECT extend_lease($1)", bobs)


async def test_what_was_taken_back_by_an_admin_may_be_had_again_up_to_the_usual_time(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await lent(database, service)
    await ask(service, BOB)
    await owner.execute("UPDATE leases SET expires_at = expires_at - interval '90 minutes' WHERE id = $1", lease)
    usual = await owner.fetchval("SELECT assigned_at + interval '2 hours' FROM leases WHERE id = $1", lease)
    assert await service.fetchval("SELECT extend_lease($1)", lease) == usual - timedelta(minutes=30)
    assert await service.fetchval("SELECT extend_lease($1)", lease) == usual
    assert await owner.fetchval("SELECT count(*) FROM events WHERE kind = 'lease.shortened'") == 1


async def test_only_a_lease_that_is_active_is_made_longer(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    waits = (await ask(service, ADA))["lease_id"]
    with refused("LL012"):
        await service.execute("SELECT extend_lease($1)", waits)
    await machine(database)
    with refused("LL012"):
        await service.execute("SELECT extend_lease($1)", waits)


async def test_a_pool_may_make_none_longer(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await lent(database, service)
    await owner.execute("UPDATE pools SET extend_seconds = 0")
    with refused("LL012"):
        await service.execute("SELECT extend_lease($1)", lease)


async def test_a_lease_that_ends_at_this_moment_ends_or_is_made_longer_and_never_both(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await lent(database, service)
    await owner.execute("UPDATE leases SET expires_at = clock() - interval '1 second' WHERE id = $1", lease)
    sweep = await database.connect("lablink_app")
    async with sweep.transaction():
        assert await sweep.fetchval("SELECT sweep_deadlines()") == 1
        await service.execute("SET lock_timeout = '100ms'")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await service.execute("SELECT extend_lease($1)", lease)
    with refused("LL012"):
        await service.execute("SELECT extend_lease($1)", lease)
    assert (await lease_of(owner, lease))["status"] == "ended"

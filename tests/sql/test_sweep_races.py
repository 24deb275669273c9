"""What changes between a sweep's look at it and its lock on it stays as it was changed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg

from tests.sql.steps import ask, lease_of, lent, waits_for_a_lock
from tests.sql.test_moves import renew
from tests.support.database import Database

STOPS_BEFORE_LOCKING = """
    ALTER FUNCTION lock_leases RENAME TO lock_these_leases;
    CREATE FUNCTION lock_leases(p_leases uuid[]) RETURNS uuid[] LANGUAGE plpgsql SET search_path = public AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock(6) WHERE p_leases <> '{}';
        RETURN lock_these_leases(p_leases);
    END $$
"""
HOURS_THAT_ARE_OVER_SOON = """
    INSERT INTO pool_schedules (pool, name, on_date, starts_at, ends_at, time_zone, machines, ends_leases)
    VALUES ('default', 'workshop', '2027-01-11', '09:00', '18:00', 'UTC', 1, true)
"""


@asynccontextmanager
async def swept(database: Database, owner: asyncpg.Connection, duty: str) -> AsyncIterator[None]:
    """The duty has chosen its leases, and locks them when the block ends."""
    await owner.execute(STOPS_BEFORE_LOCKING)
    gate, sweep = await database.connect("lablink"), await database.connect("lablink_app")
    async with gate.transaction():
        await gate.execute("SELECT pg_advisory_xact_lock(6)")
        sweeping = asyncio.create_task(sweep.execute(f"SELECT sweep_{duty}()"))
        await waits_for_a_lock(owner, sweep)
        yield
    await sweeping


async def ends_in(owner: asyncpg.Connection, lease: UUID, minutes: float) -> None:
    """Its end is moved."""
    await owner.execute(
        "UPDATE leases SET expires_at = clock() + $2 * interval '1 minute' WHERE id = $1", lease, minutes
    )


async def test_a_lease_that_its_holder_made_longer_does_not_end(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE pools SET extend_seconds = 3600, longest_seconds = 86400")
    _, lease = await lent(database, service)
    await ends_in(owner, lease, -1)
    async with swept(database, owner, "deadlines"):
        until = await service.fetchval("SELECT extend_lease($1)", lease)
    kept = await lease_of(owner, lease)
    assert (kept["status"], kept["expires_at"]) == ("active", until)


async def test_a_fresh_line_is_not_forgotten_with_the_old_one(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    lease = (await ask(service))["lease_id"]
    await database.age(lease, 601)
    async with swept(database, owner, "secrets"):
        await renew(service, lease)
    assert not (await lease_of(owner, lease))["needs_line"]


async def test_an_end_that_came_nearer_than_that_of_the_hours_stays(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await database.stand_at("2027-01-11 17:00+00")
    await owner.execute(HOURS_THAT_ARE_OVER_SOON)
    _, lease = await lent(database, service)
    async with swept(database, owner, "schedules"):
        await ends_in(owner, lease, 10)
    assert await owner.fetchval("SELECT expires_at = clock() + interval '10 minutes' FROM leases WHERE id = $1", lease)

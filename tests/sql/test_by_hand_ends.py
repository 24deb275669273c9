"""What an admin may write in psql about the end of a lease."""

import asyncpg
import pytest

from tests.sql.steps import ADA, ask, lease_of, lent, machine, refused
from tests.support.database import Database

LEFT = """
    SELECT l.expires_at > clock() + make_interval(secs => p.lease_seconds - 60)
    FROM leases l JOIN pools p ON p.name = l.pool WHERE l.id = $1
"""


@pytest.mark.parametrize("change", ["expires_at = 'infinity'", "expires_at = '9999-12-31'", "deadline = '-infinity'"])
async def test_the_end_of_a_lease_is_a_time_that_comes(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, change: str
) -> None:
    await machine(database)
    await ask(service, ADA)

    with refused("23514"):
        await owner.execute(f"UPDATE leases SET {change}")


@pytest.mark.parametrize("end", ["NULL", "'2999-12-31'"])
async def test_who_may_keep_a_machine_for_ever_moves_with_all_the_time_of_the_pool_at_least(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, end: str
) -> None:
    _, lease = await lent(database, service)
    await machine(database, "vm-2")
    await owner.execute(f"UPDATE leases SET expires_at = {end}")

    await owner.execute("UPDATE vms SET status = 'failed' WHERE hostname = 'vm-1'")

    assert (await lease_of(owner, lease))["hostname"] == "vm-2"
    assert await owner.fetchval(LEFT, lease)

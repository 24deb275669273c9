"""Ten thousand rows in one statement, as an admin with a large fleet would write it."""

import asyncio
import re
from contextlib import suppress

import asyncpg
import pytest

from allocator.migrations import function_files
from tests.sql.steps import ADA, ask
from tests.support import LIMIT_SECONDS
from tests.support.database import UNHURRIED, Database, free_machines

MANY = 10_000
JOIN = re.compile(r"FROM \w+_rows \w FULL JOIN [^;]*")


async def test_every_change_of_status_works_on_ten_thousand_rows_at_once(owner: asyncpg.Connection) -> None:
    await owner.execute(
        "INSERT INTO vms (hostname, status) SELECT 'h' || g, 'available' FROM generate_series(1, $1::int) g", MANY
    )

    for change, became in (
        ("status = 'in-use'", "in-use"),
        ("status = 'available'", "cleaning"),
        ("status = 'available', cleaned_epoch = epoch", "available"),
        ("status = 'in-use', email = 'u' || id || '@example.org', crd_command = 'python train.py'", "in-use"),
        ("status = 'failed'", "failed"),
    ):
        assert await owner.execute(f"UPDATE vms SET {change}") == f"UPDATE {MANY}"
        assert await owner.fetchval("SELECT count(*) FROM vms WHERE status = $1", became) == MANY

    assert await owner.fetchval("SELECT count(*) FROM leases WHERE status = 'ended' AND kind = 'hold'") == MANY
    assert await owner.fetchval("SELECT count(*) FROM leases WHERE failure = 'vm-failed' AND kind = 'typed'") == MANY
    assert await owner.execute("DELETE FROM vms") == f"DELETE {MANY}"


async def test_every_lease_of_a_large_fleet_ends_in_one_statement(owner: asyncpg.Connection) -> None:
    await owner.execute(
        "INSERT INTO vms (hostname, status) SELECT 'h' || g, 'in-use' FROM generate_series(1, $1::int) g", MANY
    )

    assert await owner.execute("UPDATE leases SET status = 'ended'") == f"UPDATE {MANY}"

    assert await owner.fetchval("SELECT count(*) FROM vms WHERE status = 'cleaning'") == MANY


async def test_a_thousand_who_wait_are_served_by_sweeps_that_each_end_in_time(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute(
        "INSERT INTO leases (email, kind) SELECT 'u' || n || '@example.org', 'job' FROM generate_series(1, 1000) n"
    )
    await free_machines(owner, 1000)
    await service.execute("SET statement_timeout = '5s'")
    async with asyncio.timeout(LIMIT_SECONDS):
        while await sweep_in_time(service):
            pass
    await service.execute(f"SET statement_timeout = '{UNHURRIED['statement_timeout']}'")

    assert await owner.fetchval("SELECT count(*) FROM leases WHERE status = 'assigned'") == 1000
    assert (await ask(service, ADA))["outcome"] == "created"


async def sweep_in_time(service: asyncpg.Connection) -> int:
    """How many are served by a sweep that ends in time, of which every other is asked for again."""
    while True:
        with suppress(asyncpg.QueryCanceledError):
            return int(await service.fetchval("SELECT sweep_queue()"))


@pytest.mark.parametrize("table", ["vms", "leases"])
async def test_old_and_new_rows_never_meet_in_a_nested_loop(owner: asyncpg.Connection, table: str) -> None:
    """A plan that was made for no rows is kept for ten thousand; a strict condition makes a full join an inner one."""
    files = [file.read_text() for file in function_files() if (table == "leases") == ("leases" in file.name)]
    joins = [join for text in files for join in JOIN.findall(text)]
    for rows in ("old_rows", "new_rows"):
        await owner.execute(f"CREATE TEMP TABLE {rows} (LIKE {table})")

    for join in joins:
        plan = [line for (line,) in await owner.fetch(f"EXPLAIN SELECT {join}")]
        assert any("Full Join" in line for line in plan), join
    assert joins

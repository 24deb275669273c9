"""Rows that belong to the version of LabLink: nobody changes them by hand, and a migrate puts them right."""

import asyncpg
import pytest

from allocator import migrate
from tests.sql.steps import refused
from tests.support.database import Database

TRANSITIONS = "SELECT string_agg(t::text, ' ' ORDER BY t::text) FROM {} t"


@pytest.mark.parametrize("table", ["vm_transitions", "lease_transitions", "sweeps"])
async def test_rows_that_come_with_the_version_cannot_be_changed(owner: asyncpg.Connection, table: str) -> None:
    column = await owner.fetchval(
        "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum = 1", table
    )
    for statement in (
        f"DELETE FROM {table}",
        f"TRUNCATE {table}",
        f"UPDATE {table} SET {column} = 'x'",
        f"INSERT INTO {table} SELECT * FROM {table} LIMIT 1",
    ):
        with refused("LL003"):
            await owner.execute(statement)


@pytest.mark.parametrize("table", ["vm_transitions", "lease_transitions", "sweeps"])
async def test_a_migrate_puts_rows_right_that_were_changed_all_the_same(
    database: Database, owner: asyncpg.Connection, table: str
) -> None:
    superuser = await database.connect("postgres")
    before = await superuser.fetchval(TRANSITIONS.format(table))
    await superuser.execute(f"SET session_replication_role = replica; DELETE FROM {table}")

    await migrate.upgrade(database.dsn("lablink"))

    assert await superuser.fetchval(TRANSITIONS.format(table)) == before
    with refused("LL003"):
        await owner.execute(f"DELETE FROM {table}")


@pytest.mark.parametrize("table", ["event_sealing", "usage_counting"])
async def test_how_far_the_service_has_come_cannot_be_forgotten(
    database: Database, owner: asyncpg.Connection, table: str
) -> None:
    for statement in (f"DELETE FROM {table}", f"TRUNCATE {table}"):
        with refused("LL003"):
            await owner.execute(statement)

    await (await database.connect("postgres")).execute(f"SET session_replication_role = replica; DELETE FROM {table}")
    await migrate.upgrade(database.dsn("lablink"))

    assert await owner.fetchval(f"SELECT count(*) FROM {table}") == 1

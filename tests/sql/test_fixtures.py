"""The fixtures keep what they promise to other tests."""

from datetime import timedelta

import asyncpg
import pytest

from tests.support.database import Database


async def test_a_machine_enrols_and_is_available(database: Database) -> None:
    vm = await database.vm("vm-7")
    owner = await database.connect()
    row = await owner.fetchrow("SELECT hostname, status, role FROM vms WHERE id = $1", vm.id)
    assert row is not None
    assert tuple(row) == ("vm-7", "available", vm.role)


async def test_a_machine_may_be_left_booting(database: Database) -> None:
    vm = await database.vm(status="booting")
    owner = await database.connect()
    assert await owner.fetchval("SELECT status FROM vms WHERE id = $1", vm.id) == "booting"


@pytest.mark.parametrize("attempt", [1, 2])
async def test_each_test_has_a_database_of_its_own(database: Database, attempt: int) -> None:
    owner = await database.connect()
    assert await owner.fetchval("SELECT count(*) FROM vms") == 0
    await database.vm(f"vm-{attempt}")


async def test_local_time_is_not_utc(database: Database) -> None:
    app = await database.connect("lablink_app")
    assert await app.fetchval("SELECT utc_offset FROM pg_timezone_names WHERE name = current_setting('timezone')") == (
        timedelta(hours=5, minutes=45)
    )


async def test_a_machine_can_be_made_silent_for_a_while(database: Database) -> None:
    vm = await database.vm()
    await database.age(vm, seconds=60)
    owner = await database.connect()
    silence = await owner.fetchval("SELECT clock() - seen_at FROM vm_heartbeats WHERE vm_id = $1", vm.id)
    assert timedelta(seconds=60) < silence < timedelta(seconds=90)


async def test_the_clock_can_be_made_to_run_ahead(database: Database) -> None:
    await database.let_pass(3600)
    owner = await database.connect()
    assert await owner.fetchval("SELECT clock() - now()") == timedelta(hours=1)


async def test_strangers_may_not_connect(database: Database) -> None:
    superuser = await database.connect("postgres")
    await superuser.execute("CREATE ROLE stranger LOGIN PASSWORD 'x'")
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await asyncpg.connect(database.server.dsn(database.name, "stranger", "x"))
    finally:
        await superuser.execute("DROP ROLE stranger")

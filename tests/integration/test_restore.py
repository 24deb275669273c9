"""A backup takes the place of the database in one moment, or nothing has changed; nobody's old memory wins."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from allocator.operations import OperationRefused
from allocator.upkeep import UpkeepFailed
from allocator.upkeep.backup import back_up
from allocator.upkeep.reach import in_database
from allocator.upkeep.restore import Restored
from allocator.upkeep.storage import Directory
from tests.sql.steps import CYD, ask
from tests.support import LIMIT_SECONDS
from tests.support.database import Database
from tests.support.upkeep import Halt, ignore, restored_from, some_life, without_kept_databases


@pytest.fixture
def storage(tmp_path: Path) -> Directory:
    """An empty place for backups."""
    return Directory(tmp_path / "backups")


@pytest_asyncio.fixture(autouse=True)
async def _tidy(database: Database) -> AsyncIterator[None]:
    """Databases that a restore kept are dropped."""
    async with without_kept_databases(database):
        yield


async def names(database: Database) -> list[str]:
    """What there is on the server beside the database itself, without its name before it."""
    superuser = await database.connect("postgres")
    rows = await superuser.fetch("SELECT datname FROM pg_database WHERE starts_with(datname, $1)", f"{database.name}_")
    return sorted(row["datname"].removeprefix(f"{database.name}_") for row in rows)


async def back_up_of(database: Database, storage: Directory) -> str:
    return (await back_up(database.dsn("lablink"), storage, ignore)).name


async def test_what_was_there_when_the_backup_was_made_is_there_again(database: Database, storage: Directory) -> None:
    await some_life(database)
    name = await back_up_of(database, storage)
    owner = await database.connect()
    events = await owner.fetchval("SELECT count(*) FROM events")
    await owner.execute("DELETE FROM vms")
    await owner.close()

    restored = await restored_from(database, storage, name)

    owner = await database.connect()
    assert await owner.fetchval("SELECT hostname FROM vms") == "vm-1"
    assert await owner.fetchval("SELECT count(*) FROM events") > events
    assert await owner.fetch("SELECT * FROM broken_invariants()") == []
    assert (restored.leases_failed, restored.vms_to_invite) == (2, [])
    assert await names(database) == [restored.kept_as.removeprefix(f"{database.name}_")]


async def test_live_leases_of_the_backup_fail_visibly(database: Database, storage: Directory) -> None:
    await some_life(database)
    await restored_from(database, storage, await back_up_of(database, storage))

    owner = await database.connect()
    leases = await owner.fetch("SELECT status, failure FROM leases")
    assert {tuple(row) for row in leases} == {("failed", "database-restored")}


async def test_every_epoch_is_above_all_that_a_machine_remembers(database: Database, storage: Directory) -> None:
    vm = await some_life(database)
    name = await back_up_of(database, storage)
    owner = await database.connect()
    await owner.execute("UPDATE vms SET status = 'cleaning', epoch = epoch + 5000000")
    remembered = await owner.fetchval("SELECT epoch FROM vms")
    await owner.close()

    await restored_from(database, storage, name)

    client = await vm.connect()
    orders = await client.fetchrow("SELECT * FROM client_api.hello($1, NULL)", remembered)
    assert orders
    assert orders["epoch"] > remembered
    assert orders["status"] == "cleaning"
    assert await client.fetchval("SELECT client_api.cleaned($1)", orders["epoch"]) == "available"


async def test_a_machine_whose_role_is_gone_is_failed_and_named(database: Database, storage: Directory) -> None:
    await database.vm("vm-2")
    name = await back_up_of(database, storage)
    owner, service = await database.connect(), await database.connect("lablink_app")
    await owner.execute("UPDATE vms SET status = 'retired'")
    assert await service.fetchval("SELECT sweep_roles()") == 1
    await asyncio.gather(owner.close(), service.close())

    restored = await restored_from(database, storage, name)

    owner = await database.connect()
    assert restored.vms_to_invite == ["vm-2"]
    row = await owner.fetchrow("SELECT status, reason FROM vms")
    assert tuple(row or ()) == ("failed", "unhealthy: this server does not have its role; invite it again")
    await owner.close()
    vm = await database.vm("vm-2", "booting")
    orders = await (await vm.connect()).fetchrow("SELECT * FROM client_api.hello(0, NULL)")
    assert orders
    assert orders["status"] == "cleaning"


async def test_the_role_of_a_machine_that_came_later_goes(database: Database, storage: Directory) -> None:
    name = await back_up_of(database, storage)
    later = await database.vm("vm-9")

    await restored_from(database, storage, name)

    service = await database.connect("lablink_app")
    assert await service.fetchval("SELECT sweep_roles()") == 1
    assert not await service.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", later.role)


async def test_a_database_in_use_is_restored_only_by_force(database: Database, storage: Directory) -> None:
    vm = await some_life(database)
    connection = await vm.connect()
    name = await back_up_of(database, storage)

    with pytest.raises(UpkeepFailed, match=r"is in use: live leases: 2, connected machines: 1\. .*--force"):
        await restored_from(database, storage, name, force=False)

    assert await connection.fetchval("SELECT status FROM client_api.hello(0, NULL)") == "in-use"
    await restored_from(database, storage, name)
    assert await _is_cut(connection)


async def _is_cut(connection: asyncpg.Connection) -> bool:
    try:
        await connection.execute("SELECT")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        return True
    return False


async def test_nothing_is_accepted_between_the_pause_and_the_swap(database: Database, storage: Directory) -> None:
    await database.vm("vm-1")
    name = await back_up_of(database, storage)
    accepted: list[object] = []
    again, stop = asyncio.Event(), asyncio.Event()

    async def ask_again_and_again() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                service = await database.connect("lablink_app", lock_timeout="100ms")
                accepted.append((await ask(service, f"p{number}@example.org"))["lease_id"])
                again.set()
                await service.close()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                continue

    async with asyncio.TaskGroup() as group:
        group.create_task(ask_again_and_again())
        restored = await restored_from(database, storage, name)
        again.clear()
        await again.wait()
        stop.set()

    old = await database.keep(in_database(database.dsn("lablink"), restored.kept_as))
    owner = await database.connect()
    before, after = [[row["id"] for row in await each.fetch("SELECT id FROM leases")] for each in (old, owner)]
    assert len(after) > 0
    assert {*before, *after} >= set(accepted)


async def test_a_restore_that_is_interrupted_changes_nothing(database: Database, storage: Directory) -> None:
    await some_life(database)
    name = await back_up_of(database, storage)
    owner = await database.connect()
    before = await owner.fetch("SELECT id, status, epoch FROM vms")
    halt = Halt()
    loading = asyncio.create_task(restored_from(database, storage, name, tell=halt))
    async with asyncio.timeout(LIMIT_SECONDS):
        await halt.reached.wait()
    assert any(found.startswith("restoring") for found in await names(database))
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading

    assert await owner.fetch("SELECT id, status, epoch FROM vms") == before
    assert await names(database) == []
    run = await owner.fetchrow("SELECT status, error FROM operations WHERE kind = 'restore'")
    assert tuple(run or ()) == ("failed", "interrupted")


async def test_a_backup_that_is_not_what_its_manifest_says_is_not_put_in_place(
    database: Database, storage: Directory
) -> None:
    name = await back_up_of(database, storage)
    manifest = storage.path / f"{name}.json"
    manifest.write_text(manifest.read_text().replace('"public.pools": 1', '"public.pools": 2'))

    with pytest.raises(UpkeepFailed, match=r"did not arrive as it was made: public\.pools has 1 rows instead of 2"):
        await restored_from(database, storage, name)

    assert await names(database) == []


async def test_a_superuser_who_stays_connected_keeps_everything_as_it_was(
    database: Database, storage: Directory
) -> None:
    name = await back_up_of(database, storage)
    await database.vm("vm-1")
    superuser = await database.connect("postgres")

    with pytest.raises(UpkeepFailed, match="Somebody stays connected: end that session and try again"):
        await restored_from(database, storage, name)

    assert await superuser.fetchval("SELECT count(*) FROM vms") == 1
    assert await names(database) == []
    assert await superuser.fetchval("SELECT status FROM operations WHERE kind = 'restore'") == "failed"


async def test_settings_and_rights_of_the_database_stay(database: Database, storage: Directory) -> None:
    owner = await database.connect()
    await owner.execute(f"ALTER DATABASE {database.name} SET work_mem = '7MB'")
    zone = await owner.fetchval("SHOW timezone")
    vm = await database.vm("vm-1")
    await owner.close()

    restored = await restored_from(database, storage, await back_up_of(database, storage))

    service = await database.connect("lablink_app")
    assert await service.fetchval("SELECT current_setting('work_mem')") == "7MB"
    assert await service.fetchval("SHOW timezone") == zone
    assert await (await vm.connect()).fetchval("SELECT hostname FROM client_api.hello(0, NULL)") == "vm-1"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await database.keep(in_database(database.dsn("lablink_app"), restored.kept_as))


async def test_the_database_of_before_keeps_its_rows_and_no_code(database: Database, storage: Directory) -> None:
    name = await back_up_of(database, storage)
    await some_life(database)

    restored = await restored_from(database, storage, name)

    kept = await database.keep(in_database(database.dsn("lablink"), restored.kept_as))
    assert await kept.fetchval("SELECT count(*) FROM leases") == 2
    assert await kept.fetchval("SELECT count(*) FROM lease_secrets") == 0


async def test_a_restore_is_in_the_history_of_the_restored_database(database: Database, storage: Directory) -> None:
    name = await back_up_of(database, storage)
    await restored_from(database, storage, name)

    owner = await database.connect()
    run = await owner.fetchrow("SELECT status, started_by, result FROM operations WHERE kind = 'restore'")
    assert run
    assert (run["status"], run["started_by"], json.loads(run["result"])["backup"]) == ("done", "a test", name)
    assert await owner.fetchval("SELECT detail ->> 'backup' FROM events WHERE kind = 'database.restored'") == name


async def test_a_backup_of_a_later_version_is_refused(database: Database, storage: Directory) -> None:
    name = await back_up_of(database, storage)
    manifest = storage.path / f"{name}.json"
    manifest.write_text(manifest.read_text().replace('"version": "', '"version": "9'))

    with pytest.raises(UpkeepFailed, match="which this LabLink does not know"):
        await restored_from(database, storage, name)


async def test_a_database_that_lost_its_tables_is_restored(database: Database, storage: Directory) -> None:
    await some_life(database)
    name = await back_up_of(database, storage)
    owner = await database.connect()
    await owner.execute("DROP TABLE vms, leases CASCADE")
    await owner.close()

    await restored_from(database, storage, name, force=False)

    owner = await database.connect()
    assert await owner.fetchval("SELECT count(*) FROM vms") == 1
    assert (await ask(await database.connect("lablink_app"), CYD))["outcome"] == "created"


async def test_two_restores_do_not_meet(database: Database, storage: Directory) -> None:
    name = await back_up_of(database, storage)
    halt = Halt()
    both = [asyncio.create_task(restored_from(database, storage, name, tell=halt)) for _ in range(2)]
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    halt.go_on.set()
    outcomes = await asyncio.gather(*both, return_exceptions=True)
    assert {type(each) for each in outcomes} == {OperationRefused, Restored}

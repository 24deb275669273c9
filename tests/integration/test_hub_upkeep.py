"""Upkeep of a fleet that speaks over the hub: its tokens are the present ones, and it is not missed at PostgreSQL."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from allocator.upkeep import UpkeepFailed, activity, tune
from allocator.upkeep.backup import back_up
from allocator.upkeep.storage import Directory
from tests.support.admin import answer
from tests.support.database import Database
from tests.support.upkeep import ignore, restored_from, without_kept_databases

OLD, NEW = b"o" * 32, b"n" * 32


@pytest_asyncio.fixture(autouse=True)
async def _tidy(database: Database) -> AsyncIterator[None]:
    """Databases that a restore kept are dropped."""
    async with without_kept_databases(database):
        yield


@pytest_asyncio.fixture
async def owner(database: Database) -> asyncpg.Connection:
    """The owner, of a pool whose machines speak over the hub."""
    owner = await database.connect()
    await owner.execute("UPDATE pools SET transport = 'hub'")
    return owner


async def keep_token(database: Database, hostname: str, token: bytes) -> None:
    """Have that machine known to the hub by this token, as its password is another now."""
    vm = await database.vm(hostname)
    connection = await vm.connect()
    await connection.execute("SELECT client_api.keep_hub_token($1)", token)
    await connection.close()


async def who_is(database: Database, token: bytes) -> bool:
    """Whether that token is a machine's."""
    service = await database.connect("lablink_app")
    said = await service.fetchval("SELECT hub_call($1, 'hello', '{\"epoch\": 0}')", token)
    return '"answer"' in said


async def test_a_restore_brings_no_token_back_that_was_changed_since(
    database: Database, owner: asyncpg.Connection, tmp_path: Path
) -> None:
    storage = Directory(tmp_path / "backups")
    await keep_token(database, "vm-1", OLD)
    name = (await back_up(database.dsn("lablink"), storage, ignore)).name
    await owner.execute("UPDATE vm_roles SET hub_sha256 = $1", NEW)
    await owner.close()

    await restored_from(database, storage, name)

    assert (await who_is(database, NEW), await who_is(database, OLD)) == (True, False)


async def test_a_machine_that_was_revoked_stays_out_after_a_restore(
    database: Database, owner: asyncpg.Connection, tmp_path: Path
) -> None:
    storage = Directory(tmp_path / "backups")
    await keep_token(database, "vm-1", OLD)
    name = (await back_up(database.dsn("lablink"), storage, ignore)).name
    await owner.execute("SELECT revoke_vm('vm-1')")
    await owner.close()

    await restored_from(database, storage, name)

    assert not await who_is(database, OLD)


async def test_a_machine_that_speaks_over_the_hub_is_one_that_a_restore_would_disturb(
    database: Database, owner: asyncpg.Connection, tmp_path: Path
) -> None:
    storage = Directory(tmp_path / "backups")
    name = (await back_up(database.dsn("lablink"), storage, ignore)).name
    await database.age(await database.vm("vm-silent"), 3600)
    await database.vm("vm-1")

    with pytest.raises(UpkeepFailed, match="connected machines: 1"):
        await restored_from(database, storage, name, force=False)


async def test_machines_of_the_hub_are_not_missed_at_postgresql(database: Database, owner: asyncpg.Connection) -> None:
    await database.vm("vm-1")
    silent = await database.vm("vm-silent")
    await database.age(silent, 3600)

    assert (await activity.listeners(owner)).unheard == ["vm-silent"]
    assert await tune.machines(owner) == 0


async def test_admins_see_how_a_machine_speaks(database: Database, owner: asyncpg.Connection) -> None:
    await owner.execute("UPDATE pools SET transport = 'auto'")
    direct = await (await database.vm("vm-1")).connect()
    await database.vm("vm-2")
    await database.age(await database.vm("vm-3"), 3600)

    shown = {vm["hostname"]: (vm["transport"], vm["transport_wished"]) for vm in await answer(database, "vms", "list")}

    assert shown == {"vm-1": ("direct", "auto"), "vm-2": ("hub", "auto"), "vm-3": (None, "auto")}
    await direct.close()

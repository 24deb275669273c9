"""The fixtures keep what they promise."""

import asyncpg
import pytest

from tests.support.database import Database


async def test_a_vm_enrols_and_is_available(database: Database) -> None:
    vm = await database.vm("vm-1")
    owner = await database.connect()
    assert await owner.fetchval("SELECT status FROM vms WHERE id = $1", vm.id) == "available"
    assert await owner.fetchval("SHOW timezone") == "Asia/Kathmandu"


@pytest.mark.parametrize("n", range(20))
async def test_a_vms_role_reads_no_table(database: Database, n: int) -> None:
    vm = await database.vm("vm-1")
    client = await vm.connect()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await client.fetch("SELECT * FROM public.vms")

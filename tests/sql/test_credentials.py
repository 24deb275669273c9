"""A machine's credential can be taken away and can be changed, and what was logged in with the old one is cut off."""

import asyncpg
import pytest

from client.scram import verifier
from tests.sql.steps import is_cut_off, machine, refused, row_of
from tests.support.database import Database


async def wants(connection: asyncpg.Connection) -> bool:
    return bool(await connection.fetchval("SELECT client_api.wants_new_password()"))


async def test_a_machine_whose_credential_is_revoked_is_cut_off_for_good_and_its_lease_fails(
    database: Database, owner: asyncpg.Connection
) -> None:
    hostile, honest = await machine(database), await machine(database, "vm-2")
    await owner.execute("UPDATE vms SET status = 'in-use' WHERE hostname = 'vm-1'")

    assert await owner.fetchval("SELECT revoke_vm('vm-1')") == "failed"

    assert await is_cut_off(hostile.connection)
    assert (await honest.hello())["status"] == "available"
    with pytest.raises(asyncpg.InvalidPasswordError):
        await hostile.vm.connect()
    row = await row_of(owner, "vm-1")
    assert (row["status"], row["reason"]) == ("failed", "held by lablink: its credential was revoked")
    assert await owner.fetchval("SELECT count(*) FROM leases WHERE live") == 0
    assert await owner.fetch("SELECT * FROM broken_invariants()") == []


async def test_who_slips_in_while_a_credential_is_revoked_is_the_next_sweeps(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    hostile = await machine(database)
    await owner.execute("BEGIN")
    await owner.execute("SELECT revoke_vm('vm-1')")
    again = await hostile.vm.connect()
    await owner.execute("COMMIT")

    await service.execute("SELECT sweep_roles()")

    assert await is_cut_off(again)


async def test_a_machine_whose_credential_is_revoked_comes_back_by_an_invitation_and_not_otherwise(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await machine(database)
    await owner.execute("SELECT revoke_vm('vm-1')")

    with refused("LL003"):
        await owner.execute("SELECT return_vm('vm-1')")

    await database.vm("vm-1")
    await service.execute("SELECT sweep_roles()")
    assert (await row_of(owner, "vm-1"))["status"] == "available"
    assert await owner.fetchval("SELECT count(*) FROM vm_roles") == 1


async def test_a_machine_that_failed_can_be_revoked_too(database: Database, owner: asyncpg.Connection) -> None:
    await machine(database)
    await owner.execute("SELECT fail_vm('vm-1', 'odd')")

    assert await owner.fetchval("SELECT revoke_vm('vm-1')") == "failed"


@pytest.mark.parametrize("function", ["rotate_vm", "revoke_vm"])
async def test_what_has_no_credential_has_none_to_change(owner: asyncpg.Connection, function: str) -> None:
    await owner.execute("INSERT INTO vms (hostname) VALUES ('vm-7')")

    for hostname in ("vm-7", "nope"):
        with refused("LL002"):
            await owner.execute(f"SELECT {function}($1)", hostname)


async def test_a_new_password_is_taken_once_and_only_when_it_is_wanted(
    database: Database, owner: asyncpg.Connection
) -> None:
    vm = await machine(database)
    stolen = await vm.vm.connect()
    assert not await wants(vm.connection)
    assert not await vm.connection.fetchval("SELECT client_api.change_password($1)", verifier("mine"))

    assert await owner.fetchval("SELECT rotate_vm('vm-1')") == "available"

    assert await wants(vm.connection)
    assert await vm.connection.fetchval("SELECT client_api.change_password($1)", verifier("new-password"))
    assert not await wants(vm.connection)
    assert await is_cut_off(stolen)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await vm.vm.connect()
    await database.keep(database.server.dsn(database.name, vm.vm.role, "new-password"))


async def test_what_is_no_verifier_is_not_taken_for_one(database: Database, owner: asyncpg.Connection) -> None:
    vm = await machine(database)
    await owner.execute("SELECT rotate_vm('vm-1')")

    for words in ("secret", "", None, f"{verifier('x')}' SUPERUSER"):
        with refused("LL006"):
            await vm.connection.execute("SELECT client_api.change_password($1)", words)

    assert await wants(vm.connection)

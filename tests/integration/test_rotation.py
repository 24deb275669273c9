"""A machine changes its password when it is asked to, whatever gets lost, and is never without one that works."""

from pathlib import Path
from typing import Literal

import asyncpg
import pytest

from client.direct import DirectTransport
from client.protocol import Memory
from client.rotation import Passwords
from client.settings import load_credential
from client.transport import UnknownVm, Unreachable
from tests.support.database import Database
from tests.support.machine import Machine, Pool, reached
from tests.support.wire import wire_to

NOTHING = Memory(0, None)


def transport(machine: Machine) -> DirectTransport:
    """As a client that starts now would open it: all that it knows is on the disk."""
    credential = load_credential(machine.state.credential)
    return DirectTransport(credential.database, Passwords(machine.state, credential), refused_patience=0)


def password(machine: Machine) -> str:
    return load_credential(machine.state.credential).database.password


async def test_a_client_that_serves_changes_its_password_at_once_and_its_lease_goes_on(
    database: Database, tmp_path: Path
) -> None:
    pool = await Pool.of(database)
    machine = Machine.of(await database.vm(), tmp_path / "vm")
    old = password(machine)
    async with machine.serving():
        lease = await pool.request_job(machine.job("sleep 60"))
        await pool.settled(lease)

        await pool.owner.execute("SELECT rotate_vm('vm-1')")
        await pool.owner.execute("SELECT disconnect_vm('vm-1')")
        await pool.until("SELECT EXISTS (SELECT FROM events WHERE kind = 'vm.rotated')")
        await reached(lambda: password(machine) != old and not machine.state.rotation.exists())

        assert (await pool.lease(lease))["status"] == "active"
        await reached(lambda: machine.count_starts() > 0)
    assert machine.count_starts() == 1
    with pytest.raises(asyncpg.InvalidPasswordError):
        await machine.vm.connect()


@pytest.mark.parametrize("what", ["request", "answer"])
async def test_a_client_that_dies_while_it_changes_its_password_gets_in_again_and_changes_it(
    database: Database, tmp_path: Path, what: Literal["request", "answer"]
) -> None:
    pool = await Pool.of(database)
    async with wire_to(database.server) as wire:
        machine = Machine.of(await database.vm(), tmp_path / "vm", wire.port)
        old = password(machine)
        await pool.owner.execute("SELECT rotate_vm('vm-1')")
        loss = wire.lose(what, "change_password")
        async with transport(machine) as dying:
            with pytest.raises(Unreachable):
                await dying.hello(NOTHING)
        assert loss.happened.is_set()
        assert password(machine) == old
        assert machine.state.rotation.stat().st_mode & 0o777 == 0o600

        async with transport(machine) as started_again:
            await started_again.hello(NOTHING)

        assert password(machine) != old
        assert not machine.state.rotation.exists()
        assert await pool.owner.fetchval("SELECT count(*) FROM events WHERE kind = 'vm.rotated'") == 1


async def test_a_client_killed_before_it_forgot_the_change_does_not_take_the_same_password_for_a_new_one(
    database: Database, tmp_path: Path
) -> None:
    pool = await Pool.of(database)
    machine = Machine.of(await database.vm(), tmp_path / "vm")
    machine.state.rotation.write_text(f'{{"password": "{password(machine)}"}}')
    old = password(machine)
    await pool.owner.execute("SELECT rotate_vm('vm-1')")

    async with transport(machine) as started_again:
        await started_again.hello(NOTHING)

    assert password(machine) != old


async def test_a_machine_whose_disk_takes_no_new_password_serves_with_the_old_one(
    database: Database, tmp_path: Path
) -> None:
    pool = await Pool.of(database)
    machine = Machine.of(await database.vm(), tmp_path / "vm")
    (machine.state.root / "rotation.json.new").mkdir()
    await pool.owner.execute("SELECT rotate_vm('vm-1')")

    async with transport(machine) as other:
        assert (await other.hello(NOTHING)).hostname == "vm-1"


async def test_a_machine_whose_credential_was_revoked_learns_that_it_is_not_enrolled(
    database: Database, tmp_path: Path
) -> None:
    pool = await Pool.of(database)
    machine = Machine.of(await database.vm(), tmp_path / "vm")
    await pool.owner.execute("SELECT revoke_vm('vm-1')")

    async with transport(machine) as other:
        with pytest.raises(UnknownVm):
            await other.hello(NOTHING)


async def test_a_connection_over_which_no_password_could_be_changed_is_closed(
    database: Database, tmp_path: Path
) -> None:
    pool = await Pool.of(database)
    machine = Machine.of(await database.vm(), tmp_path / "vm")
    await pool.owner.execute("SELECT rotate_vm('vm-1')")
    await pool.owner.execute("ALTER FUNCTION client_api.change_password RENAME TO was_change_password")

    async with transport(machine) as other:
        with pytest.raises(Unreachable) as held:
            await other.hello(NOTHING)
        await pool.until("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename = $1)", machine.vm.role)
    assert isinstance(held.value.__cause__, asyncpg.UndefinedFunctionError)

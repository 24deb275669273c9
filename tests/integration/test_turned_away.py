"""A machine that PostgreSQL does not let in: when that passes, and when it is nobody any more."""

from dataclasses import replace

import pytest

from client.direct import DirectTransport
from client.transport import UnknownVm, Unreachable
from tests.support.hub import NOTHING
from tests.support.machine import Machine, Pool


async def test_a_password_that_is_refused_for_long_means_that_the_machine_is_not_enrolled(machine: Machine) -> None:
    address = replace(machine.address, password="wrong")
    async with DirectTransport(address, refused_patience=0) as transport:
        with pytest.raises(UnknownVm):
            await transport.hello(NOTHING)
    async with DirectTransport(address) as transport:
        with pytest.raises(Unreachable):
            await transport.hello(NOTHING)


async def test_a_machine_that_may_not_log_in_for_another_reason_stays_enrolled(pool: Pool, machine: Machine) -> None:
    await pool.owner.execute(f"ALTER ROLE {machine.vm.role} NOLOGIN")
    async with DirectTransport(machine.address, refused_patience=0) as transport:
        with pytest.raises(Unreachable, match="not permitted to log in"):
            await transport.hello(NOTHING)


async def test_a_machine_that_somebody_made_read_only_for_good_is_heard(pool: Pool, machine: Machine) -> None:
    await pool.owner.execute(f"ALTER ROLE {machine.vm.role} SET default_transaction_read_only = on")
    async with DirectTransport(machine.address) as transport:
        assert (await transport.hello(NOTHING)).vm_id == machine.vm.id


async def test_a_retired_machine_stops_and_wipes_itself_and_is_nobody_any_more(pool: Pool, machine: Machine) -> None:
    client = await machine.start()
    try:
        await pool.settled(await pool.request_job(machine.job("sleep 60")))
        await pool.owner.execute("SELECT retire_vm($1)", machine.vm.hostname)
        assert await client.ended() == 77
    finally:
        await machine.stop()
    left = {path.name for path in machine.state.root.iterdir()}
    assert left == {"settings.json", "start-host", "starts", "boot_id", "lock"}

"""A machine that is lent is told so straight from the claim: it says no hello for that, and is told once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio

from allocator.leasing import LeaseRequest, open_lease
from allocator.requesting import Lent
from client.hub import HubTransport
from client.protocol import Memory
from tests.support import LIMIT_SECONDS
from tests.support.database import Database
from tests.support.hub import HELLO, NOTHING, Talker, hub_transport, talking
from tests.support.machine import Machine, Pool
from tests.support.service import RunningService, ready, running_service, settings_for


@pytest_asyncio.fixture
async def service(database: Database, machine: Machine, tmp_path: Path) -> AsyncIterator[RunningService]:
    """A service that hears nothing of how the machine was made: that was before."""
    async with running_service(settings_for(database, tmp_path, "pool.programs=[sh]")) as running:
        await ready(running.service)
        yield running


@pytest_asyncio.fixture
async def pool(database: Database, service: RunningService) -> Pool:
    """The pool as the service set it up, and then as these tests need it."""
    return await Pool.of(database)


@asynccontextmanager
async def greeted(service: RunningService, machine: Machine) -> AsyncIterator[Talker]:
    """The machine, once its hello was answered."""
    async with talking(service.url, machine.address.password) as talker:
        await talker.say(HELLO)
        assert "answer" in await talker.hears()
        yield talker


async def lend(service: RunningService, email: str = "ada@example.org") -> UUID:
    """Ask for a machine as the page does."""
    own = service.service
    opened = await open_lease(own.store, own.metrics, LeaseRequest(email, "sh -c 'sleep 60'", "default", ()))
    return opened.lease_id


async def looked(talker: Talker, status: str) -> None:
    """It is woken, looks, and is told that this is its status."""
    assert await talker.hears() == {"wake": True}
    await talker.say(HELLO)
    assert (await talker.hears())["answer"]["status"] == status


@asynccontextmanager
async def told_orders(service: RunningService, machine: Machine) -> AsyncIterator[tuple[HubTransport, UUID]]:
    """The machine's transport, which was told that it is lent, and the lease."""
    async with hub_transport(machine, service.url) as transport:
        await transport.hello(NOTHING)
        transport.wake.clear()
        lease = await lend(service)
        await woken(transport.wake)
        yield transport, lease


async def woken(wake: asyncio.Event) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        await wake.wait()
    wake.clear()


async def next_status(transport: HubTransport) -> str:
    """What the machine is once it was told that there is something new, and looked."""
    await woken(transport.wake)
    return (await transport.hello(NOTHING)).status


async def test_who_is_lent_is_told_the_orders_and_then_nothing_of_the_same(
    service: RunningService, pool: Pool, machine: Machine
) -> None:
    async with greeted(service, machine) as talker:
        lease = await lend(service)
        told = await talker.hears()
        assert told == {
            "orders": {
                "vm_id": machine.vm.id,
                "status": "in-use",
                "epoch": 1,
                "lease_id": str(lease),
                "lease_status": "assigned",
                "kind": "job",
            }
        }
        await talker.say({"verb": "claim", "epoch": 1})
        assert (await talker.hears())["answer"]["lease_id"] == str(lease)
        await pool.end(lease)
        assert await talker.hears() == {"wake": True}


async def test_orders_that_came_by_themselves_are_what_a_hello_would_have_been_answered(
    service: RunningService, pool: Pool, machine: Machine
) -> None:
    async with told_orders(service, machine) as (transport, lease):
        seen = await pool.owner.fetchval("SELECT seen_at FROM vm_heartbeats")

        told = await transport.hello(NOTHING)

        assert seen == await pool.owner.fetchval("SELECT seen_at FROM vm_heartbeats")
        assert told == await transport.hello(NOTHING)
        assert (await transport.claim(told.epoch)).lease_id == lease


async def test_orders_that_came_by_themselves_do_not_put_off_the_next_hello(
    service: RunningService, pool: Pool, machine: Machine
) -> None:
    await pool.hello_every(0.05)
    async with told_orders(service, machine) as (transport, _):
        await transport.hello(NOTHING)
        async with asyncio.timeout(LIMIT_SECONDS):
            await transport.idle(3600)
        assert not transport.wake.is_set()


async def test_a_machine_that_remembers_those_orders_asks(
    service: RunningService, pool: Pool, machine: Machine
) -> None:
    async with told_orders(service, machine) as (transport, lease):
        await pool.owner.execute("UPDATE leases SET status = 'claimed' WHERE id = $1", lease)
        assert (await transport.hello(Memory(1, lease))).lease_status == "claimed"


async def test_orders_that_were_taken_back_are_not_followed(
    service: RunningService, pool: Pool, machine: Machine
) -> None:
    async with told_orders(service, machine) as (transport, lease):
        await pool.end(lease)
        await woken(transport.wake)
        assert (await transport.hello(NOTHING)).status == "cleaning"


async def test_orders_that_come_after_the_answer_to_a_later_hello_are_no_news(
    service: RunningService, pool: Pool, machine: Machine
) -> None:
    async with told_orders(service, machine) as (transport, lease):
        assert (await transport.hello(NOTHING)).status == "in-use"
        await pool.end(lease)
        assert await next_status(transport) == "cleaning"
        with service.service.hub.telling.lending() as tell:
            tell([Lent(machine.vm.id, 1, lease, "job")])
        assert await next_status(transport) == "cleaning"


async def test_who_was_lent_elsewhere_is_woken(service: RunningService, pool: Pool, machine: Machine) -> None:
    async with greeted(service, machine) as talker:
        await pool.request_job(machine.job())
        assert await talker.hears() == {"wake": True}


async def test_a_machine_that_says_it_is_clean_is_not_woken_for_that(
    service: RunningService, pool: Pool, machine: Machine
) -> None:
    async with greeted(service, machine) as talker:
        lease = await pool.request_job(machine.job())
        await looked(talker, "in-use")
        await pool.end(lease)
        await looked(talker, "cleaning")
        await talker.say({"verb": "cleaned", "epoch": 2})
        assert await talker.hears() == {"answer": "available"}
        await pool.owner.execute("SELECT fail_vm('vm-1')")
        await looked(talker, "failed")


async def test_a_machine_that_has_no_line_here_is_not_looked_for(
    service: RunningService, pool: Pool, machine: Machine
) -> None:
    lease = await lend(service)
    assert (await pool.lease(lease))["vm_id"] == machine.vm.id
    async with talking(service.url, machine.address.password) as late:
        await late.say(HELLO)
        assert (await late.hears())["answer"]["lease_id"] == str(lease)


@pytest.mark.parametrize("hints", ["[]", "x", '[{"id": 1, "hostname": "vm-1", "status": "in-use", "epoch": 1}]'])
async def test_a_forged_hint_takes_no_orders_from_anybody(
    service: RunningService, pool: Pool, machine: Machine, hints: str
) -> None:
    async with hub_transport(machine, service.url) as transport:
        await transport.hello(NOTHING)
        await pool.owner.execute("SELECT pg_notify('vm_updates', $1)", hints)
        lease = await lend(service)
        await woken(transport.wake)
        assert (await transport.hello(NOTHING)).lease_id == lease

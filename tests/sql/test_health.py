"""What a machine finds wrong with itself, and how often it may come back by itself."""

import asyncpg

from tests.sql.speaking import call, known
from tests.sql.steps import ask, claimed, lease_of, machine, refused, row_of
from tests.support.database import Database

ILL = "check gpu: it has fallen off the bus"


async def test_a_machine_that_is_well_again_is_cleaned_and_lent(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await vm.unhealthy(0, ILL)
    waits = (await ask(service))["lease_id"]
    assert await vm.well(1) == "cleaning"
    await vm.clean()
    assert (await lease_of(owner, waits))["status"] == "assigned"


async def test_it_comes_back_three_times_a_day_and_then_an_admin_returns_it(
    database: Database, owner: asyncpg.Connection
) -> None:
    vm = await machine(database)
    became = []
    for epoch in range(4):
        await vm.unhealthy(epoch, ILL)
        became.append(await vm.well(epoch + 1))
        if became[-1] == "cleaning":
            await vm.cleaned(epoch + 1)
    assert became == ["cleaning", "cleaning", "cleaning", "failed"]

    following = "SELECT detail FROM why_vm('vm-1') WHERE what = 'next'"
    assert "lablink vms return vm-1" in await owner.fetchval(following)
    await owner.execute("SELECT return_vm('vm-1')")
    assert (await row_of(owner))["status"] == "cleaning"


async def test_what_else_took_it_out_of_service_is_not_its_own_to_undo(
    database: Database, owner: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await vm.unhealthy(0, "The machine could not be cleaned: it is busy")
    assert await vm.well(1) == "failed"
    await owner.execute("SELECT return_vm('vm-1')")
    await vm.clean()
    await owner.execute("SELECT fail_vm('vm-1', 'unhealthy: check it')")
    assert await vm.well(2) == "failed"
    await owner.execute("SELECT retire_vm('vm-1')")
    with refused("LL002"):
        await vm.well(3)


async def test_what_a_machines_checks_find_while_an_admin_has_it_is_left_alone(
    database: Database, owner: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await owner.execute("UPDATE vms SET status = 'in-use'")
    assert await vm.unhealthy(1, ILL) == "in-use"
    assert await vm.unhealthy(1, "The disk cannot be written") == "failed"


async def test_a_machine_that_is_kept_for_somebody_leaves_service_when_it_is_ill(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await claimed(database, service)
    await vm.report(lease, 1, "failed", failure="code-used")
    assert (await vm.hello(1, lease))["kind"] == "hold"
    assert await vm.unhealthy(1, ILL) == "failed"
    assert (await lease_of(owner, lease))["status"] == "queued"


async def test_a_machine_that_is_not_failed_stays_as_it_is(database: Database) -> None:
    vm = await machine(database)
    assert await vm.well(0) == "available"
    with refused("LL001"):
        await vm.well(7)


async def test_it_may_say_so_over_the_hub(database: Database, service: asyncpg.Connection) -> None:
    vm = await known(database)
    await vm.unhealthy(0, ILL)
    assert await call(service, "well", epoch=1) == {"answer": "cleaning"}


async def test_why_says_that_it_comes_back(database: Database, owner: asyncpg.Connection) -> None:
    vm = await machine(database)
    await vm.unhealthy(0, ILL)
    following = "SELECT detail FROM why_vm('vm-1') WHERE what = 'next'"
    assert await owner.fetchval(following) == "it is cleaned once its own checks have passed for some minutes"
    assert "by itself, unless" in await owner.fetchval("SELECT why FROM vm_status")

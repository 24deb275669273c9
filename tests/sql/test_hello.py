"""What a hello answers and changes, and how it finds out that the database was restored to an earlier time."""

from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.sql.steps import ask, claimed, lease_of, machine, refused, row_of
from tests.support.database import Database

HIGHEST = 10**15


async def test_the_first_hello_makes_a_new_machine_available(database: Database, owner: asyncpg.Connection) -> None:
    vm = await machine(database, status="booting")

    orders = await vm.hello()

    assert dict(orders) == {
        "vm_id": vm.vm.id,
        "hostname": "vm-1",
        "status": "available",
        "epoch": 0,
        "lease_id": None,
        "lease_status": None,
        "kind": None,
        "period_seconds": 10.0,
    }


async def test_the_first_hello_may_be_answered_with_an_assignment(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    answer = await ask(service)
    vm = await machine(database, status="booting")

    orders = await vm.hello()

    assert (orders["status"], orders["epoch"], orders["lease_id"]) == ("in-use", 1, answer["lease_id"])
    assert (orders["lease_status"], orders["kind"]) == ("assigned", "desktop")


async def test_a_hello_is_a_sign_of_life(database: Database, owner: asyncpg.Connection) -> None:
    vm = await machine(database)
    await database.age(vm.vm, 100)

    await vm.hello()

    assert await owner.fetchval("SELECT clock() - seen_at < interval '1 minute' FROM vm_heartbeats")


async def test_a_hello_that_brings_no_news_changes_nothing(database: Database, owner: asyncpg.Connection) -> None:
    vm = await machine(database)
    before = (await row_of(owner), await owner.fetchval("SELECT max(id) FROM events"))

    await vm.hello(0)
    await vm.hello(None)

    assert (await row_of(owner), await owner.fetchval("SELECT max(id) FROM events")) == before


async def test_the_larger_the_fleet_the_rarer_the_hellos(database: Database, owner: asyncpg.Connection) -> None:
    vm = await machine(database)
    await owner.execute("INSERT INTO vm_heartbeats SELECT g, clock() FROM generate_series(100, 6099) g")
    await owner.execute("ANALYZE vm_heartbeats")

    assert (await vm.hello())["period_seconds"] == pytest.approx(6001 / 500)


async def test_a_machine_that_was_lost_is_cleaned_when_it_is_back(
    database: Database, owner: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await owner.execute("UPDATE vms SET status = 'failed', reason = 'lost'")

    orders = await vm.hello()
    await vm.cleaned(orders["epoch"])

    assert (orders["status"], orders["epoch"]) == ("cleaning", 1)
    assert (await row_of(owner))["status"] == "available"


async def test_a_machine_that_an_admin_holds_stays_failed(database: Database, owner: asyncpg.Connection) -> None:
    vm = await machine(database)
    await owner.execute("UPDATE vms SET status = 'failed'")

    orders = await vm.hello()

    assert orders["status"] == "failed"
    assert (await row_of(owner))["reason"] == "held by lablink"


async def test_a_machine_that_remembers_a_later_epoch_ends_the_lease_and_jumps_past_it(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await claimed(database, service)

    orders = await vm.hello(7, uuid4())

    ended = await lease_of(owner, lease)
    assert (orders["status"], orders["epoch"], orders["lease_id"]) == ("cleaning", 8, None)
    assert (ended["status"], ended["failure"]) == ("failed", "database-restored")


@pytest.mark.parametrize("remembered", [uuid4(), None])
async def test_a_machine_that_remembers_another_lease_or_a_wipe_at_this_epoch_ends_the_lease(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, remembered: UUID | None
) -> None:
    vm, lease = await claimed(database, service)

    orders = await vm.hello(1, remembered)

    assert (orders["status"], orders["epoch"]) == ("cleaning", 2)
    assert (await lease_of(owner, lease))["failure"] == "database-restored"


async def test_a_machine_that_remembers_its_own_lease_goes_on(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await claimed(database, service)

    orders = await vm.hello(1, lease)

    assert (orders["status"], orders["epoch"], orders["lease_status"]) == ("in-use", 1, "claimed")


@pytest.mark.parametrize("status", ["booting", "available"])
async def test_a_machine_without_a_lease_that_remembers_more_is_cleaned_at_a_later_epoch(
    database: Database, owner: asyncpg.Connection, status: str
) -> None:
    vm = await machine(database, status=status)

    orders = await vm.hello(7, None)

    assert (orders["status"], orders["epoch"]) == ("cleaning", 8)
    assert await vm.cleaned(8) == "available"


async def test_a_held_machine_that_remembers_more_stays_held_at_a_later_epoch(
    database: Database, owner: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await owner.execute("UPDATE vms SET status = 'failed', reason = 'smells of smoke'")

    orders = await vm.hello(7, None)

    assert (orders["status"], orders["epoch"]) == ("failed", 8)
    assert (await row_of(owner))["reason"] == "held by lablink: smells of smoke"


@pytest.mark.parametrize("epoch", [HIGHEST, 2**63 - 2, 2**63 - 1])
async def test_an_epoch_that_cannot_be_is_refused_so_that_there_is_always_a_next_one(
    database: Database, owner: asyncpg.Connection, epoch: int
) -> None:
    vm = await machine(database)

    with refused("LL001"):
        await vm.hello(epoch, None)

    assert (await row_of(owner))["epoch"] == 0


async def test_a_machine_at_the_highest_epoch_can_still_be_lent_cleaned_and_retired(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await vm.hello(HIGHEST - 1, None)
    await vm.cleaned(HIGHEST)

    await database.let_pass(61)
    await vm.hello(HIGHEST)
    await ask(service)
    orders = await vm.hello(HIGHEST + 1, uuid4())
    await vm.cleaned(orders["epoch"])

    assert orders["epoch"] == HIGHEST + 2
    assert await owner.fetchval("SELECT retire_vm('vm-1')") == "retired"

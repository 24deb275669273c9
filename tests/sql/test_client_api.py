"""How a machine says that it is clean or unwell, and what is answered to whoever is no machine."""

from uuid import uuid4

import asyncpg
import pytest

from tests.sql.steps import CODE, claimed, lease_of, machine, refused, row_of
from tests.support.database import Database


async def test_a_wiped_machine_is_available_at_the_same_epoch_and_may_say_so_twice(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await claimed(database, service)
    await service.execute("SELECT end_lease($1)", lease)

    answers = [await vm.cleaned(2), await vm.cleaned(2)]

    row = await row_of(owner)
    assert answers == ["available", "available"]
    assert (row["epoch"], row["cleaned_epoch"]) == (2, 2)


async def test_a_wipe_at_an_old_epoch_does_not_count(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await claimed(database, service)
    await service.execute("SELECT end_lease($1)", lease)

    with refused("LL001"):
        await vm.cleaned(1)

    assert (await row_of(owner))["status"] == "cleaning"


async def test_a_wipe_nobody_asked_for_leaves_the_lease_alone(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await claimed(database, service)

    assert await vm.cleaned(1) == "in-use"

    assert (await lease_of(owner, lease))["status"] == "claimed"


async def test_an_unhealthy_machine_is_failed_and_its_lease_moves_on(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await claimed(database, service)

    assert await vm.unhealthy(1, f"the disk is full of --code={CODE}") == "failed"

    row, failed = await row_of(owner), await lease_of(owner, lease)
    assert (row["epoch"], row["reason"]) == (2, "unhealthy: the disk is full of --code=***")
    assert (failed["status"], failed["trouble"]) == ("queued", "vm-failed")
    assert (await vm.hello())["status"] == "failed"


async def test_an_unhealthy_machine_need_not_say_why_and_may_say_so_twice(
    database: Database, owner: asyncpg.Connection
) -> None:
    vm = await machine(database)

    assert [await vm.unhealthy(0, None), await vm.unhealthy(1, "x" * 10_000)] == ["failed", "failed"]

    assert (await row_of(owner))["reason"] == "unhealthy: no reason given"
    with refused("LL001"):
        await vm.unhealthy(0, "again")


@pytest.mark.parametrize("statement", ["UPDATE vms SET status = 'retired'", "DELETE FROM vms", "TRUNCATE TABLE vms"])
async def test_a_machine_that_is_no_more_is_told_to_enrol_again(
    database: Database, owner: asyncpg.Connection, statement: str
) -> None:
    vm = await machine(database)
    await owner.execute(statement)

    with refused("LL002"):
        await vm.hello()
    with refused("LL002"):
        await vm.claim(1)
    with refused("LL002"):
        await vm.report(uuid4(), 1, "started")
    with refused("LL002"):
        await vm.cleaned(1)
    with refused("LL002"):
        await vm.unhealthy(1, "x")


async def test_whoever_is_no_machine_is_told_so(owner: asyncpg.Connection) -> None:
    with refused("LL002"):
        await owner.execute("SELECT client_api.hello(0, NULL)")

"""Which machines are given up for lost, when, and how many at once."""

import asyncpg
import pytest

from tests.sql.steps import BOB, LONG_AGO, ask, lease_of, lent, machine, machines, row_of
from tests.support.database import Database


async def lose(service: asyncpg.Connection, contact: float = LONG_AGO) -> int:
    return int(await service.fetchval("SELECT sweep_lost($1)", contact))


async def statuses(owner: asyncpg.Connection) -> list[str]:
    return [row["status"] for row in await owner.fetch("SELECT status FROM vms ORDER BY id")]


async def test_a_lease_says_since_when_nothing_is_heard_of_its_machine_before_that_is_lost(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await lent(database, service)
    await ask(service, BOB)
    silent = "SELECT id FROM lease_views WHERE silent_since = (SELECT seen_at FROM vm_heartbeats)"
    assert await owner.fetch(silent) == []

    await database.age(vm.vm, 26)
    assert [row["id"] for row in await owner.fetch(silent)] == [lease]
    await vm.hello()
    assert await owner.fetch(silent) == []

    await database.age(vm.vm, 26)
    await service.execute("SELECT end_lease($1)", lease)
    assert await owner.fetch(silent) == []


@pytest.mark.usefixtures("server_since_long")
async def test_a_silent_machine_is_lost_and_its_lease_moves_on(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    lease = (await ask(service))["lease_id"]
    await database.age(vm.vm, 46)

    assert await lose(service) == 1

    row, failed = await row_of(owner), await lease_of(owner, lease)
    assert (row["status"], row["reason"], row["epoch"]) == ("failed", "lost", 2)
    assert (failed["status"], failed["trouble"]) == ("queued", "lost")


@pytest.mark.usefixtures("server_since_long")
async def test_a_machine_that_was_silent_for_a_while_only_is_not_lost(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await database.age(vm.vm, 30)

    assert await lose(service) == 0


@pytest.mark.usefixtures("server_since_long")
@pytest.mark.parametrize("status", ["failed", "retired"])
async def test_a_machine_that_is_out_of_service_is_not_lost(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, status: str
) -> None:
    vm = await machine(database)
    await owner.execute("UPDATE vms SET status = $1", status)
    await database.age(vm.vm, 100)

    assert await lose(service) == 0


@pytest.mark.usefixtures("server_since_long")
async def test_nobody_is_lost_before_the_allocator_has_had_the_database_long_enough(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await database.age(vm.vm, 100)

    assert await lose(service, contact=40) == 0
    assert await lose(service, contact=46) == 1


async def test_nobody_is_lost_before_postgresql_has_run_long_enough(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    after_its_start = "SELECT (pg_postmaster_start_time() + make_interval(secs => $1))::text"
    vm = await machine(database)
    await database.age(vm.vm, LONG_AGO)

    await database.stand_at(await owner.fetchval(after_its_start, 44.0))
    assert await lose(service) == 0
    await database.stand_at(await owner.fetchval(after_its_start, 46.0))
    assert await lose(service) == 1


@pytest.mark.usefixtures("server_since_long")
async def test_a_fifth_of_the_fleet_may_be_lost_at_once(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    for vm in (await machines(database, 11))[:3]:
        await database.age(vm.vm, 100)

    assert await lose(service) == 3


@pytest.mark.usefixtures("server_since_long")
async def test_more_than_a_fifth_of_the_fleet_is_not_lost_at_once_but_reported_once_a_minute(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    for vm in (await machines(database, 10))[:3]:
        await database.age(vm.vm, 100)

    assert [await lose(service), await lose(service)] == [0, 0]

    alerts = await owner.fetch("SELECT detail FROM events WHERE kind = 'alert.silence'")
    assert [row["detail"] for row in alerts] == ['{"fleet": 10, "silent": 3}']
    assert set(await statuses(owner)) == {"available"}


@pytest.mark.usefixtures("server_since_long")
async def test_a_fifth_after_a_fifth_is_more_than_a_fifth(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vms = await machines(database, 6)
    for vm in vms[:2]:
        await database.age(vm.vm, 100)
    first = await lose(service)
    for vm in vms[2:4]:
        await database.age(vm.vm, 100)

    assert (first, await lose(service)) == (2, 0)


@pytest.mark.usefixtures("server_since_long")
async def test_who_stays_silent_while_the_others_are_heard_is_given_up_a_fifth_every_five_minutes(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    for vm in (await machines(database, 10))[:4]:
        await database.age(vm.vm, 350)
    assert [await lose(service, contact=340), await lose(service)] == [0, 2]
    assert await lose(service) == 0

    await database.let_pass(2 * LONG_AGO)
    await owner.execute("UPDATE vm_heartbeats SET seen_at = clock() WHERE vm_id > 4")
    assert await lose(service) == 2
    assert await statuses(owner) == ["failed"] * 4 + ["available"] * 6


@pytest.mark.usefixtures("server_since_long")
async def test_half_of_the_fleet_is_never_given_up(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    for vm in (await machines(database, 10))[:5]:
        await database.age(vm.vm, LONG_AGO)

    assert await lose(service) == 0
    assert set(await statuses(owner)) == {"available"}


@pytest.mark.usefixtures("server_since_long")
async def test_two_machines_may_be_lost_however_small_the_fleet(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    for vm in (await machines(database, 3))[:2]:
        await database.age(vm.vm, 100)

    assert await lose(service) == 2


@pytest.mark.usefixtures("server_since_long")
async def test_a_silent_machine_whose_row_somebody_holds_is_left_for_the_next_sweep(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vms = await machines(database, 2)
    for vm in vms:
        await database.age(vm.vm, 100)
    await service.execute("SET lock_timeout = '2s'")
    async with owner.transaction():
        await owner.execute("SELECT FROM vms WHERE hostname = 'vm-1' FOR UPDATE")
        first = await lose(service)

    assert (first, await lose(service)) == (1, 1)


async def test_a_lost_machine_comes_back_clean_and_serves_the_queue(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await database.let_pass(LONG_AGO)
    await lose(service)
    lease = (await ask(service))["lease_id"]

    await vm.clean()

    assert (await row_of(owner))["lease_id"] == lease


@pytest.mark.usefixtures("server_since_long")
@pytest.mark.parametrize("status", ["booting", "available", "in-use", "cleaning"])
async def test_a_machine_that_was_inserted_by_hand_and_never_heard_is_lost_too(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, status: str
) -> None:
    await owner.execute("INSERT INTO vms (hostname, status) VALUES ('test-vm', $1)", status)
    early = await lose(service)
    await database.let_pass(LONG_AGO + 46)

    assert (early, await lose(service)) == (0, 1)
    row = await row_of(owner, "test-vm")
    assert (row["status"], row["reason"], row["lease_id"]) == ("failed", "lost", None)


async def test_a_machine_that_enrolled_again_is_waited_for_from_then_on(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await database.vm("vm-1")
    await database.let_pass(LONG_AGO)
    await database.enrol("vm-1")
    early = await lose(service)
    await database.let_pass(LONG_AGO + 46)

    assert (early, await lose(service)) == (0, 1)
    assert (await row_of(owner))["status"] == "failed"


async def test_machines_that_were_never_heard_are_no_sign_of_a_broken_network(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    silent, *_ = await machines(database, 5)
    await owner.execute("INSERT INTO vms (hostname, status) SELECT 'h' || g, 'available' FROM generate_series(1, 9) g")
    await database.let_pass(LONG_AGO)
    await owner.execute("UPDATE vm_heartbeats SET seen_at = clock() WHERE vm_id <> $1", silent.vm.id)

    assert await lose(service) == 10
    assert await owner.fetchval("SELECT count(*) FROM events WHERE kind = 'alert.silence'") == 0


async def test_when_the_network_is_to_blame_only_those_that_were_never_heard_go(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await machines(database, 5)
    await owner.execute("INSERT INTO vms (hostname, status) VALUES ('test-vm', 'available')")
    await database.let_pass(LONG_AGO)

    assert await lose(service) == 1
    assert (await row_of(owner, "test-vm"))["reason"] == "lost"

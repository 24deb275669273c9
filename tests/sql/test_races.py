"""Many at once on real connections: nobody shares a machine, nobody is forgotten."""

import asyncio
from collections import Counter

import asyncpg
import pytest

from tests.sql.steps import (
    ADA,
    ask,
    connections,
    lease_of,
    machine,
    machines,
    refused,
    row_of,
    waits_for_a_lock,
)
from tests.support.database import Database, free_machines

MANY = 50


async def test_fifty_people_who_ask_at_once_get_fifty_different_machines(
    database: Database, owner: asyncpg.Connection
) -> None:
    people = await connections(database, MANY)
    await free_machines(owner, MANY)

    answers = await asyncio.gather(*(ask(person, f"u{n}@example.org") for n, person in enumerate(people)))

    leases = await owner.fetch("SELECT DISTINCT vm_id FROM leases WHERE status = 'assigned'")
    assert {answer["outcome"] for answer in answers} == {"created"}
    assert len(leases) == MANY


async def test_of_fifty_who_ask_for_twenty_machines_thirty_wait_in_line(
    database: Database, owner: asyncpg.Connection
) -> None:
    people = await connections(database, MANY)
    await free_machines(owner, 20)

    await asyncio.gather(*(ask(person, f"u{n}@example.org") for n, person in enumerate(people)))

    waiting = await owner.fetch(
        "SELECT position FROM lease_views v JOIN leases USING (id) WHERE v.status = 'queued' ORDER BY place"
    )
    served = await owner.fetchval("SELECT count(DISTINCT vm_id) FROM leases WHERE status = 'assigned'")
    assert served == 20
    assert [row["position"] for row in waiting] == list(range(1, 31))


async def test_twenty_requests_of_one_person_at_once_are_one_lease(
    database: Database, owner: asyncpg.Connection
) -> None:
    await database.vm("vm-1")
    people = await connections(database, 20)

    answers = await asyncio.gather(*(ask(person, ADA) for person in people))

    assert len({answer["lease_id"] for answer in answers}) == 1
    assert Counter(answer["outcome"] for answer in answers) == {"created": 1, "live": 19}
    assert await owner.fetchval("SELECT count(*) FROM leases") == 1


async def test_one_request_that_is_sent_twenty_times_at_once_is_one_lease(
    database: Database, owner: asyncpg.Connection
) -> None:
    await database.vm("vm-1")
    people = await connections(database, 20)

    answers = await asyncio.gather(*(ask(person, ADA, key="k") for person in people))

    assert len({answer["lease_id"] for answer in answers}) == 1
    assert Counter(answer["outcome"] for answer in answers) == {"created": 1, "repeated": 19}


async def test_thirty_machines_that_come_free_at_once_serve_thirty_who_wait(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    fleet = await machines(database, 30)
    await owner.execute("UPDATE vms SET status = 'cleaning'")
    for number in range(MANY):
        await ask(service, f"u{number}@example.org")
    await owner.execute("UPDATE vm_heartbeats SET seen_at = clock()")

    await asyncio.gather(*(vm.cleaned(1) for vm in fleet))
    await service.execute("SELECT sweep_queue()")

    served = await owner.fetch("SELECT vm_id FROM leases WHERE status = 'assigned' ORDER BY place")
    assert len({row["vm_id"] for row in served}) == 30
    assert await owner.fetchval("SELECT max(place) FROM leases WHERE status = 'assigned'") == await owner.fetchval(
        "SELECT min(place) - 1 FROM leases WHERE status = 'queued'"
    )


async def test_a_request_and_a_wipe_that_did_not_see_each_other_meet_at_the_next_sweep(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await owner.execute("UPDATE vms SET status = 'cleaning'")
    async with service.transaction():
        await ask(service)
        await vm.cleaned(1)

    assert await service.fetchval("SELECT sweep_queue()") == 1

    assert (await row_of(owner))["email"] == ADA


async def test_who_ends_a_lease_while_it_gets_a_machine_tries_again_instead_of_waiting_for_each_other(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await database.vm("vm-1")
    await database.age(vm, 60)
    lease = (await ask(service))["lease_id"]
    admin = await database.connect("lablink")
    async with admin.transaction():
        await admin.execute("UPDATE vms SET status = 'in-use', lease_id = $1", lease)
        ending = asyncio.create_task(service.fetchval("SELECT end_lease($1)", lease))
        await waits_for_a_lock(owner, service)

    with refused("40001"):
        await ending
    assert await service.fetchval("SELECT end_lease($1)", lease) == "cancelled"


async def test_a_lease_that_ends_before_the_claim_commits_is_cancelled_and_its_report_is_stale(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    lease = (await ask(service))["lease_id"]
    async with vm.connection.transaction():
        await vm.claim(1)
        ending = asyncio.create_task(service.fetchval("SELECT end_lease($1)", lease))
        await waits_for_a_lock(owner, service)

    assert await ending == "cancelled"
    with refused("LL001"):
        await vm.report(lease, 1, "started")


async def test_a_report_that_waits_for_the_end_of_its_lease_is_stale(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    lease = (await ask(service))["lease_id"]
    await vm.claim(1)
    admin = await database.connect("lablink")
    async with admin.transaction():
        await admin.execute("SELECT release_vm('vm-1')")
        reporting = asyncio.create_task(vm.report(lease, 1, "exited", 0))
        await waits_for_a_lock(owner, vm.connection)

    with refused("LL001"):
        await reporting
    assert (await lease_of(owner, lease))["status"] == "cancelled"


async def test_a_machine_that_fails_while_it_is_being_lent_is_not_lent(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await database.vm("vm-1")
    async with owner.transaction():
        await owner.execute("UPDATE vms SET status = 'failed'")
        answer = await ask(service)

    assert (await lease_of(owner, answer["lease_id"]))["status"] == "queued"
    assert (await row_of(owner))["status"] == "failed"


async def test_a_hello_that_waits_for_the_sweep_does_not_bring_a_lost_machine_back_unwiped(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    lease = (await ask(service))["lease_id"]
    await database.age(vm.vm, 100)
    await database.let_pass(3600)
    await owner.execute("UPDATE vm_heartbeats SET seen_at = clock() - interval '100 seconds'")
    async with service.transaction():
        assert await service.fetchval("SELECT sweep_lost(3600)") == 1
        greeting = asyncio.create_task(vm.hello(1, lease))
        await waits_for_a_lock(owner, vm.connection)
    orders = await greeting

    assert orders["status"] == "failed"
    assert (await vm.hello(1, lease))["status"] == "cleaning"
    assert await service.fetchval("SELECT sweep_secrets()") == 1


async def test_a_transaction_that_sees_an_older_database_cannot_break_a_rule(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await database.vm("vm-1")
    admin = await database.connect("lablink")

    await admin.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await admin.fetch("SELECT * FROM vms")
    await ask(service)
    with pytest.raises(asyncpg.SerializationError):
        await admin.execute("UPDATE vms SET status = 'failed'")
    await admin.execute("ROLLBACK")

    assert (await row_of(owner))["email"] == ADA


async def test_a_machine_that_is_deleted_while_it_says_hello_is_told_so(
    database: Database, owner: asyncpg.Connection
) -> None:
    vm = await machine(database)
    admin = await database.connect("lablink")
    async with admin.transaction():
        await admin.execute("DELETE FROM vms")
        hello = asyncio.create_task(vm.hello())
        await waits_for_a_lock(owner, vm.connection)
    with refused("LL002"):
        await hello
    assert await owner.fetchval("SELECT count(*) FROM vm_heartbeats") == 0

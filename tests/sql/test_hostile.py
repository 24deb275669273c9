"""A machine that was taken over, or is broken, keeps nothing that is others' and wears nobody out."""

import asyncio
from uuid import UUID

import asyncpg
import pytest

from tests.sql.steps import (
    ADA,
    BOB,
    CYD,
    Machine,
    ask,
    is_cut_off,
    lease_of,
    lent,
    machine,
    machines,
    refused,
    row_of,
    swept,
    waits_for_a_lock,
)
from tests.support.database import Database

EXPIRED = 28_800
ESCAPES = "a\x1b]52;c;\x07b\x9b2J\u202ec\r\nd\te"


async def keep_locked(vm: Machine, epoch: int) -> None:
    """Leaves a transaction open that holds the machine's row."""
    await vm.connection.execute("BEGIN")
    await vm.cleaned(epoch)


async def test_a_machine_that_keeps_its_row_locked_in_turns_keeps_no_lease(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await lent(database, service)
    second = Machine(vm.vm, await vm.vm.connect())
    await database.age(lease, EXPIRED + 11)
    await keep_locked(vm, 1)
    turn = asyncio.create_task(keep_locked(second, 1))
    await waits_for_a_lock(owner, second.connection)

    assert await swept(service, "sweep_deadlines()") == 1

    assert (await lease_of(owner, lease))["status"] == "ended"
    assert [await is_cut_off(one.connection) for one in (vm, second)] == [True, True]
    await asyncio.gather(turn, return_exceptions=True)  # it may have had its turn just before its end


async def test_a_machine_whose_lease_is_only_just_over_is_not_cut_off(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await database.stop_clock()
    vm, lease = await lent(database, service)
    await database.age(lease, EXPIRED + 1)
    await keep_locked(vm, 1)

    assert await service.fetchval("SELECT sweep_deadlines()") == 0

    await vm.connection.execute("ROLLBACK")
    assert await service.fetchval("SELECT sweep_deadlines()") == 1


@pytest.mark.usefixtures("server_since_long")
async def test_a_machine_whose_hello_never_ends_is_lost(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await database.age(vm.vm, 100)
    await vm.connection.execute("BEGIN")
    await vm.hello()

    assert await swept(service, "sweep_lost(1e6)") == 1

    assert await is_cut_off(vm.connection)
    assert (await row_of(owner))["reason"] == "lost"


async def test_whoever_is_first_in_the_queue_is_served_though_a_machine_holds_their_request(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    hostile, honest = await machines(database, 2)
    await owner.execute("UPDATE vms SET status = 'cleaning'")
    lease = (await ask(service))["lease_id"]
    await keep_locked(hostile, 1)
    assert await honest.cleaned(1) == "available"

    assert await swept(service, "sweep_queue()") == 1

    assert (await lease_of(owner, lease))["hostname"] == honest.hostname


async def test_a_request_that_an_admin_holds_keeps_nobody_else_waiting(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await database.vm()
    await database.age(vm, 60)
    for email in (ADA, BOB):
        await ask(service, email)
    await owner.execute("UPDATE vm_heartbeats SET seen_at = clock()")
    async with owner.transaction():
        await owner.execute("SELECT FROM leases WHERE email = $1 FOR UPDATE", ADA)

        assert await service.fetchval("SELECT sweep_queue()") == 1

    assert (await row_of(owner))["email"] == BOB


async def test_a_role_with_more_large_objects_than_locks_is_cut_off_at_once_and_dropped_bit_by_bit(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    hostile, other = await machines(database, 2)
    superuser = await database.connect("postgres")
    await superuser.execute("GRANT EXECUTE ON FUNCTION lo_create(oid) TO PUBLIC")  # as on a managed service
    await hostile.connection.execute("SELECT lo_create(0) FROM generate_series(1, 1001)")
    await owner.execute("DELETE FROM vms")

    assert await service.fetchval("SELECT sweep_roles()") == 1

    left = [row["role"] for row in await owner.fetch("SELECT role FROM vm_roles")]
    assert left == [hostile.vm.role] != [other.vm.role]
    assert await owner.fetchval("SELECT count(*) FROM pg_largeobject_metadata") == 1
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await asyncpg.connect(hostile.vm.dsn)
    assert await service.fetchval("SELECT sweep_roles()") == 1


async def test_a_machine_remembers_more_than_the_database_once_a_minute_at_most(
    database: Database, owner: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await vm.hello(7, None)
    await vm.cleaned(8)
    with refused("LL001"):
        await vm.hello(9, None)

    await database.let_pass(61)

    assert (await vm.hello(9, None))["epoch"] == 10


async def fail_on(vm: Machine, service: asyncpg.Connection, email: str, failure: str) -> UUID:
    """Asks as this person; the machine, the only one, claims and reports this failure."""
    lease: UUID = (await ask(service, email))["lease_id"]
    epoch = (await vm.hello(None))["epoch"]
    await vm.claim(epoch)
    if await vm.report(lease, epoch, "failed", failure=failure) != "failed":
        await service.execute("SELECT end_lease($1)", lease)
    return lease


async def fail_in_turn(vm: Machine, service: asyncpg.Connection, people: list[str], failures: list[str]) -> None:
    """One failed lease after the other; the machine is cleaned between them and not after the last."""
    for number, (email, failure) in enumerate(zip(people, failures, strict=True)):
        if number:
            await vm.clean()
        await fail_on(vm, service, email, failure)


async def test_a_machine_on_which_three_leases_in_a_row_failed_is_not_lent_again_before_somebody_looked(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)

    await fail_in_turn(vm, service, [ADA, BOB, CYD], ["command-failed", "not-installed", "timed-out"])

    row = await row_of(owner)
    assert (row["status"], row["reason"]) == ("failed", "unhealthy: three leases in a row failed on it")
    await owner.execute("SELECT return_vm('vm-1')")
    await vm.clean()
    await fail_on(vm, service, ADA, "command-failed")
    assert (await row_of(owner))["status"] == "cleaning"


@pytest.mark.parametrize(
    ("people", "failures"),
    [
        ([ADA, BOB], ["command-failed"] * 2),
        ([ADA, ADA, ADA], ["command-failed"] * 3),
        ([ADA, BOB, CYD], ["command-failed", "code-used", "command-failed"]),
        ([ADA, BOB, CYD], ["refused"] * 3),
    ],
)
async def test_what_a_person_did_wrong_fails_no_machine(
    database: Database,
    owner: asyncpg.Connection,
    service: asyncpg.Connection,
    people: list[str],
    failures: list[str],
) -> None:
    vm = await machine(database)

    await fail_in_turn(vm, service, people, failures)

    assert (await row_of(owner))["status"] == "cleaning"


async def test_a_lease_that_worked_in_between_clears_the_machine(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await fail_in_turn(vm, service, [ADA, BOB], ["unknown"] * 2)
    await vm.clean()
    worked = (await ask(service))["lease_id"]
    await vm.run()
    await service.execute("SELECT end_lease($1)", worked)
    await vm.clean()

    await fail_on(vm, service, CYD, "unknown")

    assert (await row_of(owner))["status"] == "cleaning"


async def test_what_a_machine_says_has_nothing_in_it_that_a_terminal_would_act_on(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    lease = (await ask(service))["lease_id"]
    await vm.claim(1)

    await vm.report(lease, 1, "exited", 0, ESCAPES)
    assert (await lease_of(owner, lease))["output"] == "a]52;c;b2Jc\nd\te"
    await vm.unhealthy(1, ESCAPES)

    assert (await row_of(owner))["reason"] == "unhealthy: a]52;c;b2Jc d e"


async def test_how_a_machine_has_words_read_does_not_change_what_is_done_with_its_own(
    database: Database, owner: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await vm.connection.execute("SET standard_conforming_strings = off; SET escape_string_warning = off")

    await vm.unhealthy(0, "no space\nleft")

    assert (await row_of(owner))["reason"] == "unhealthy: no space left"


async def test_what_a_person_asks_to_run_is_shown_in_the_direction_it_runs(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await service.execute("SELECT ensure_pool('default', true, ARRAY['echo'], 60, 60, 60)")

    lease = (await ask(service, argv=["echo", "\u202etxt.exe"]))["lease_id"]

    assert (await lease_of(owner, lease))["crd_command"] == "echo txt.exe"


async def test_a_machine_with_the_name_of_a_part_of_the_service_ends_leases_as_a_machine(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database, "web")

    lease = await fail_on(vm, service, ADA, "command-failed")

    assert await service.fetchval("SELECT ended_by FROM lease_views WHERE id = $1", lease) == "machine"

"""Who asks while a machine is free is lent it in one step; nobody gets around a rule by writing rows like that."""

import json
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest

from tests.sql.steps import (
    ADA,
    BOB,
    CODE,
    CYD,
    LINE,
    Machine,
    ask,
    ask_together,
    asked,
    lease_of,
    lent,
    machine,
    refused,
    row_of,
)
from tests.support.database import Database

AS_A_REQUEST_DOES = (
    "UPDATE vms SET status = 'in-use', epoch = epoch + 1, updated_at = clock(), {} WHERE hostname = 'vm-1'"
)


async def kinds_of(owner: asyncpg.Connection, lease: UUID) -> list[str]:
    rows = await owner.fetch("SELECT kind FROM events WHERE lease_id = $1 ORDER BY id", lease)
    return [row["kind"] for row in rows]


async def nothing_is_odd(owner: asyncpg.Connection) -> bool:
    return await owner.fetch("SELECT * FROM broken_invariants()") == []


async def waiting_typed(owner: asyncpg.Connection) -> UUID:
    """Bob's lease in the queue, for a line without a secret."""
    lease: UUID = await owner.fetchval(
        "INSERT INTO leases (email, kind, crd_command) VALUES ($1, 'typed', 'python train.py') RETURNING id", BOB
    )
    return lease


async def test_a_request_is_not_queued_while_a_machine_is_free(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await owner.execute("UPDATE pools SET claim_seconds = 60, lease_seconds = 3600")

    lease = await lease_of(owner, (await ask(service, ADA))["lease_id"])

    assert (lease["status"], lease["vm_id"], lease["hostname"], lease["epoch"]) == ("assigned", vm.vm.id, "vm-1", 1)
    assert lease["assigned_at"] == lease["created_at"]
    times = [(lease[name] - lease["created_at"]).total_seconds() for name in ("deadline", "expires_at")]
    assert times == [60, 3600]
    assert await kinds_of(owner, lease["id"]) == ["lease.assigned", "vm.in-use"]
    detail = await owner.fetchval("SELECT detail FROM events WHERE kind = 'lease.assigned'")
    assert json.loads(detail) == {"kind": "desktop", "epoch": 1}
    row = await row_of(owner)
    assert (row["email"], row["crd_command"], row["updated_at"]) == (ADA, lease["crd_command"], lease["created_at"])
    assert await nothing_is_odd(owner)


async def test_a_machine_that_one_does_not_need_goes_to_the_last_who_came_with_them(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await lent(database, service, ADA)
    for hostname in ("vm-2", "vm-3"):
        await database.vm(hostname)

    answers = await ask_together(service, asked(ADA), asked(BOB), asked(CYD))

    assert [answer["outcome"] for answer in answers] == ["live", "created", "created"]
    assert None not in [answer["vm_id"] for answer in answers[1:]]
    assert await owner.fetchval("SELECT count(*) FROM vms WHERE status = 'available'") == 0
    assert await nothing_is_odd(owner)


async def test_a_machine_that_nobody_needs_stays_as_it_is(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await lent(database, service, ADA)
    await database.vm("vm-2")
    before = await row_of(owner, "vm-2")

    assert (await ask(service, ADA))["outcome"] == "live"

    assert await row_of(owner, "vm-2") == before


async def test_a_line_typed_with_the_next_epoch_is_kept_and_run(database: Database, owner: asyncpg.Connection) -> None:
    vm = await machine(database)

    await owner.execute(
        AS_A_REQUEST_DOES.format(f"lease_id = gen_random_uuid(), email = '{ADA}', crd_command = 'python train.py'")
    )

    assignment = await vm.claim(1)
    assert (assignment["line"], assignment["kind"]) == ("python train.py", "typed")
    assert await nothing_is_odd(owner)


@pytest.mark.parametrize("secret", [LINE, f"start-host --c\\ode={CODE}"])
async def test_a_code_typed_with_the_next_epoch_is_refused_and_nowhere_to_be_read(
    database: Database, owner: asyncpg.Connection, secret: str
) -> None:
    await machine(database)

    with refused("LL003"):
        await owner.execute(
            AS_A_REQUEST_DOES.format(f"lease_id = gen_random_uuid(), email = '{ADA}', crd_command = $1"), secret
        )

    for table in ("vms", "leases", "events", "lease_secrets"):
        assert CODE not in str(await owner.fetch(f"SELECT t::text FROM {table} t"))


@pytest.mark.parametrize(
    "values",
    [
        f"email = '{ADA}', crd_command = 'python train.py'",
        f"email = '{BOB}', crd_command = 'python another.py'",
        f"email = '{BOB}', crd_command = NULL",
    ],
)
async def test_a_machine_lent_to_a_lease_says_the_person_and_the_command_of_that_lease(
    database: Database, owner: asyncpg.Connection, values: str
) -> None:
    await machine(database)
    waits = await waiting_typed(owner)

    with refused("LL003"):
        await owner.execute(AS_A_REQUEST_DOES.format(f"lease_id = '{waits}', {values}"))

    assert (await lease_of(owner, waits))["status"] == "queued"


async def test_a_lease_that_waits_may_be_given_a_machine_with_its_next_epoch(
    database: Database, owner: asyncpg.Connection
) -> None:
    vm = await machine(database)
    waits = await waiting_typed(owner)

    await owner.execute(
        AS_A_REQUEST_DOES.format(f"lease_id = '{waits}', email = '{BOB}', crd_command = 'python train.py'")
    )

    assert (await lease_of(owner, waits))["vm_id"] == vm.vm.id
    assert await nothing_is_odd(owner)


async def test_no_machine_is_lent_to_a_lease_that_is_over_or_has_another(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    over = (await ask(service, BOB, argv=None))["lease_id"]
    await owner.execute("SELECT end_lease($1)", over)
    other = (await lent(database, service, ADA))[1]
    await owner.execute("UPDATE vms SET status = 'available' WHERE hostname = 'vm-1'")
    vm = Machine(await database.vm("vm-9"), owner)
    summary = (await lease_of(owner, over))["crd_command"]

    for lease, email in ((over, BOB), (other, ADA)):
        with refused("LL003"):
            await owner.execute(
                "UPDATE vms SET status = 'in-use', epoch = epoch + 1, updated_at = clock(), lease_id = $1, email = $2, "
                "crd_command = $3 WHERE id = $4",
                lease,
                email,
                summary,
                vm.vm.id,
            )
    assert await nothing_is_odd(owner)


async def test_a_lease_that_is_begun_with_a_machine_needs_that_machine(
    database: Database, owner: asyncpg.Connection
) -> None:
    vm = await machine(database)
    values = f"'{ADA}', 'assigned', 'job', {vm.vm.id}, 'vm-1', 1, clock(), clock(), clock()"
    begun = (
        "INSERT INTO leases (email, status, kind, vm_id, hostname, epoch, assigned_at, deadline, expires_at) "
        f"VALUES ({values}) RETURNING id, email, vm_id"
    )

    for statement in (begun, f"WITH l AS ({begun}) UPDATE vms SET status = 'in-use' FROM l WHERE vms.id = l.vm_id"):
        with refused("LL003"):
            await owner.execute(statement)

    assert await owner.fetchval("SELECT count(*) FROM leases") == 0
    assert (await row_of(owner))["status"] == "available"


def begun_with_its_machine(vm: Machine, hostname: str = "vm-1", times: str = "clock(), clock(), clock()") -> str:
    """A statement that opens a lease on a machine and lends that, as a request does."""
    return (
        "WITH l AS (INSERT INTO leases (email, status, kind, vm_id, hostname, epoch, assigned_at, deadline, expires_at)"
        f" VALUES ('{ADA}', 'assigned', 'job', {vm.vm.id}, '{hostname}', 1, {times}) RETURNING *) "
        "UPDATE vms SET status = 'in-use', epoch = 1, updated_at = clock(), lease_id = l.id, email = l.email "
        "FROM l WHERE vms.id = l.vm_id"
    )


@pytest.mark.parametrize(
    "times",
    [
        "clock(), clock() - interval '1 day', clock() + interval '1 day'",
        "clock(), clock() + interval '1 day', clock() - interval '1 day'",
        "clock(), 'infinity', clock() + interval '1 day'",
        "clock(), clock() + interval '1 day', 'infinity'",
        "'-infinity', clock() + interval '1 day', clock() + interval '1 day'",
    ],
)
async def test_a_lease_that_is_begun_with_a_machine_is_neither_over_at_once_nor_never(
    database: Database, owner: asyncpg.Connection, times: str
) -> None:
    vm = await machine(database)
    await owner.execute("UPDATE pools SET claim_seconds = 60, lease_seconds = 3600")

    await owner.execute(begun_with_its_machine(vm, times=times))

    lasts = await owner.fetchrow(
        "SELECT deadline - assigned_at, expires_at - assigned_at, assigned_at = created_at FROM leases"
    )
    assert lasts is not None
    assert tuple(lasts) == (timedelta(seconds=60), timedelta(seconds=3600), True)


async def test_a_lease_that_is_begun_with_a_machine_names_that_machine(
    database: Database, owner: asyncpg.Connection
) -> None:
    vm = await machine(database)
    with refused("LL003"):
        await owner.execute(begun_with_its_machine(vm, hostname="vm-2"))

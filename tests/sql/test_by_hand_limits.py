"""What no statement typed in psql can do to a machine or a lease, and what follows when it takes one away."""

from uuid import uuid4

import asyncpg
import pytest

from tests.sql.steps import BOB, CODE, LINE, ask, lease_of, lent, machine, refused, row_of
from tests.support.database import Database


async def test_an_admin_who_wiped_a_machine_may_say_so(database: Database, owner: asyncpg.Connection) -> None:
    await database.vm("vm-1")
    await owner.execute("UPDATE vms SET status = 'cleaning'")

    await owner.execute("UPDATE vms SET status = 'available', cleaned_epoch = epoch WHERE status = 'cleaning'")

    assert (await row_of(owner))["status"] == "available"


@pytest.mark.parametrize(
    "change",
    [
        "id = id + 1",
        "epoch = epoch - 1",
        "epoch = epoch + 1",
        "epoch = 9223372036854775807, status = 'cleaning'",
        "cleaned_epoch = epoch",
        "status = 'booting'",
        "status = 'on-fire'",
        "status = NULL",
        "email = 'eve@example.org'",
        "crd_command = 'python evil.py'",
        "lease_id = gen_random_uuid()",
        "lease_id = NULL",
    ],
)
async def test_a_lent_machine_keeps_who_it_is_and_who_has_it(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, change: str
) -> None:
    await lent(database, service)
    before = await row_of(owner)

    with refused("LL003"):
        await owner.execute(f"UPDATE vms SET {change}")

    assert await row_of(owner) == before


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ("email = 'eve@example.org'", "available"),
        ("epoch = epoch + 1", "available"),
        ("cleaned_epoch = epoch - 1", "available"),
        ("status = 'booting'", "available"),
        ("status = 'in-use'", "cleaning"),
        ("status = 'in-use'", "failed"),
        ("status = 'available'", "retired"),
        ("epoch = epoch - 1", "cleaning"),
    ],
)
async def test_a_free_machine_cannot_be_changed_by_halves(
    database: Database, owner: asyncpg.Connection, change: str, status: str
) -> None:
    await database.vm("vm-1")
    if status != "available":
        await owner.execute("UPDATE vms SET status = $1", status)
    before = await row_of(owner)

    with refused("LL003"):
        await owner.execute(f"UPDATE vms SET {change}")

    assert await row_of(owner) == before


async def test_who_had_a_machine_that_is_deleted_waits_for_another(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await lent(database, service)

    await owner.execute("DELETE FROM vms WHERE hostname = 'vm-1'")

    row = await lease_of(owner, lease)
    assert (row["status"], row["trouble"], row["hostname"]) == ("queued", "vm-deleted", None)
    assert await owner.fetchval("SELECT count(*) FROM vm_heartbeats") == 0


@pytest.mark.parametrize("statement", ["TRUNCATE TABLE vms", "TRUNCATE vms RESTART IDENTITY CASCADE"])
async def test_clearing_all_machines_puts_who_had_one_before_those_who_wait(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, statement: str
) -> None:
    _, lease = await lent(database, service)
    waiting = (await ask(service, BOB))["lease_id"]

    await owner.execute(statement)
    await database.vm("vm-1")

    assert (await row_of(owner))["lease_id"] == lease
    assert (await lease_of(owner, waiting))["status"] == "queued"


async def test_a_lease_ended_in_psql_has_its_machine_cleaned(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await lent(database, service)

    await owner.execute("UPDATE leases SET status = 'ended' WHERE id = $1", lease)

    row = await row_of(owner)
    assert (row["status"], row["lease_id"], row["email"]) == ("cleaning", None, None)


async def test_a_lease_marked_started_in_psql_loses_its_secret(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await ask(service)
    await vm.claim(1)

    await owner.execute("UPDATE leases SET started_at = clock(), exit_code = 0, status = 'active'")

    assert await owner.fetchval("SELECT count(*) FROM lease_secrets") == 0


@pytest.mark.parametrize(
    "change",
    [
        "status = 'claimed'",
        "status = 'cancelled'",
        "email = 'eve@example.org'",
        "vm_id = vm_id + 1",
        "hostname = 'vm-9'",
        'command = \'{"argv": ["sleep"]}\'',
        "epoch = epoch + 1",
        "pool = 'other'",
        "kind = 'hold'",
        "id = gen_random_uuid()",
        "created_at = clock()",
    ],
)
async def test_an_active_lease_keeps_its_person_and_machine(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, change: str
) -> None:
    await lent(database, service)

    with refused("LL003"):
        await owner.execute(f"UPDATE leases SET {change}")


async def test_who_has_a_desktop_is_asked_for_a_line_on_another_machine_as_the_hint_says(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await lent(database, service)
    await machine(database, "vm-2")

    with pytest.raises(asyncpg.CheckViolationError) as refusal:
        await owner.execute("UPDATE leases SET needs_line = true")
    hint = str(refusal.value.as_dict()["hint"])
    await owner.execute(hint.partition("another machine: ")[2].replace("…", f"'{lease}'"))

    moved = await lease_of(owner, lease)
    assert (moved["status"], moved["hostname"], moved["needs_line"]) == ("assigned", "vm-2", True)


async def test_a_desktop_that_waits_for_a_line_is_not_claimed_by_hand(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await machine(database)
    await ask(service)
    await owner.execute("UPDATE leases SET needs_line = true")

    with refused("23514"):
        await owner.execute("UPDATE leases SET status = 'claimed'")


async def test_a_job_needs_no_line(owner: asyncpg.Connection, service: asyncpg.Connection) -> None:
    await service.execute("SELECT ensure_pool('default', true, ARRAY['echo'], 600, 90, 600)")
    await ask(service, argv=["echo", "hello"])

    with refused("23514"):
        await owner.execute("UPDATE leases SET needs_line = true")


async def test_an_active_lease_has_no_deadline_to_miss(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await lent(database, service)

    await owner.execute("UPDATE leases SET deadline = clock() - interval '1 hour'")
    await service.execute("SELECT sweep_deadlines()")

    assert (await lease_of(owner, lease))["status"] == "active"


async def test_a_lease_cannot_take_a_machine_from_its_own_side(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await database.vm("vm-1")
    await database.age(vm, 60)
    await ask(service)

    with refused("LL003"):
        await owner.execute("UPDATE leases SET status = 'assigned', vm_id = $1, hostname = 'vm-1', epoch = 0", vm.id)
    with refused("LL003"):
        await owner.execute(
            "INSERT INTO leases (email, kind, status, vm_id, hostname, epoch) "
            "VALUES ('lablink', 'hold', 'active', $1, 'vm-1', 0)",
            vm.id,
        )


async def test_a_live_lease_cannot_be_deleted_and_one_that_is_over_can(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    lease = (await ask(service))["lease_id"]

    with refused("LL003"):
        await owner.execute("DELETE FROM leases")
    with refused("LL003"):
        await owner.execute("TRUNCATE leases CASCADE")
    await service.execute("SELECT end_lease($1)", lease)
    await owner.execute("DELETE FROM leases")

    assert await owner.fetchval("SELECT count(*) FROM leases") == 0


async def test_the_history_names_the_admin(database: Database, owner: asyncpg.Connection) -> None:
    await database.vm("vm-1")
    await owner.execute("UPDATE vms SET status = 'failed', reason = 'fan is broken'")

    event = await owner.fetchrow("SELECT * FROM events ORDER BY id DESC LIMIT 1")

    assert event is not None
    assert (event["kind"], event["actor"], event["db_role"]) == ("vm.failed", "lablink", "lablink")
    assert event["detail"] == '{"from": "available", "epoch": 1, "reason": "held by lablink: fan is broken"}'


async def test_an_id_of_an_earlier_machine_may_be_used_again(database: Database, owner: asyncpg.Connection) -> None:
    vm = await database.vm("vm-1")
    await owner.execute("UPDATE vms SET status = 'failed'")
    await owner.execute("DELETE FROM vms")

    await owner.execute("INSERT INTO vms (id, hostname) VALUES ($1, 'vm-2')", vm.id)

    assert await owner.fetch("SELECT * FROM broken_invariants()") == []


async def test_an_epoch_that_cannot_be_is_refused_at_insert(owner: asyncpg.Connection) -> None:
    with refused("LL003"):
        await owner.execute("INSERT INTO vms (hostname, epoch) VALUES ('vm-1', 9223372036854775807)")


async def test_a_lease_id_that_is_nobodys_opens_a_lease_of_that_id(
    database: Database, owner: asyncpg.Connection
) -> None:
    await database.vm("vm-1")
    lease = uuid4()

    await owner.execute("UPDATE vms SET status = 'in-use', lease_id = $1, crd_command = $2", lease, LINE)

    assert (await lease_of(owner, lease))["status"] == "assigned"
    assert CODE not in (await row_of(owner))["crd_command"]

"""What an admin may do with machines: by name through functions, and by hand in psql, where all the same follows."""

from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.sql.steps import ADA, BOB, CODE, LINE, PIN, Machine, ask, lease_of, machine, refused, row_of
from tests.support.database import Database


async def lent(database: Database, service: asyncpg.Connection, email: str = ADA) -> tuple[Machine, UUID]:
    """A machine whose desktop is active."""
    vm = await machine(database)
    await ask(service, email)
    return vm, await vm.run()


def noticed(connection: asyncpg.Connection) -> list[str]:
    """The notices this connection gets from now on."""
    words: list[str] = []
    connection.add_log_listener(lambda _, message: words.append(str(message)))
    return words


# by name


async def test_a_released_machine_ends_its_lease_and_is_cleaned(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await lent(database, service)

    answers = [await service.fetchval("SELECT release_vm('vm-1')") for _ in range(2)]

    assert answers == ["cleaning", "cleaning"]
    assert (await lease_of(owner, lease))["status"] == "ended"
    await vm.clean()
    assert await service.fetchval("SELECT release_vm('vm-1')") == "available"


async def test_releasing_a_machine_that_had_not_started_its_command_cancels_the_lease(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await database.vm("vm-1")
    lease = (await ask(service))["lease_id"]

    await service.execute("SELECT release_vm('vm-1')")

    assert (await lease_of(owner, lease))["status"] == "cancelled"


@pytest.mark.parametrize(
    ("reason", "told"), [("fan is broken", "fan is broken"), (None, "held by web"), ("", "held by web")]
)
async def test_a_failed_machine_fails_its_lease_and_says_why(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, reason: str | None, told: str
) -> None:
    _, lease = await lent(database, service)

    assert await service.fetchval("SELECT fail_vm('vm-1', $1)", reason) == "failed"

    row, failed = await row_of(owner), await lease_of(owner, lease)
    assert (row["reason"], row["epoch"]) == (told, 2)
    assert (failed["status"], failed["failure"]) == ("failed", "vm-failed")


async def test_a_failed_machine_that_is_returned_is_cleaned_and_then_available(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await service.execute("SELECT fail_vm('vm-1', 'x')")

    answers = [await service.fetchval("SELECT return_vm('vm-1')") for _ in range(2)]
    await vm.clean()

    row = await row_of(owner)
    assert answers == ["cleaning", "cleaning"]
    assert (row["status"], row["reason"]) == ("available", None)


@pytest.mark.parametrize("status", ["booting", "available"])
async def test_returning_a_machine_that_is_not_failed_changes_nothing(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, status: str
) -> None:
    await database.vm("vm-1", status)

    assert await service.fetchval("SELECT return_vm('vm-1')") == status


async def test_returning_a_machine_that_is_lent_leaves_its_person_alone(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await lent(database, service)

    assert await service.fetchval("SELECT return_vm('vm-1')") == "in-use"

    assert (await lease_of(owner, lease))["status"] == "active"


async def test_a_retired_machine_fails_its_lease_and_comes_back_by_enrolling_only(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await lent(database, service)

    assert await service.fetchval("SELECT retire_vm('vm-1')") == "retired"

    assert (await lease_of(owner, lease))["failure"] == "vm-deleted"
    for statement in ("SELECT return_vm('vm-1')", "SELECT fail_vm('vm-1', 'x')"):
        with refused("LL003"):
            await service.execute(statement)


@pytest.mark.parametrize("function", ["release_vm($1)", "fail_vm($1, 'x')", "return_vm($1)", "retire_vm($1)"])
async def test_a_machine_that_is_not_there_is_refused(
    owner: asyncpg.Connection, service: asyncpg.Connection, function: str
) -> None:
    with refused("LL002"):
        await service.execute(f"SELECT {function}", "vm-404")


async def test_a_pool_becomes_what_the_configuration_says(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    for seconds in (100, 200):
        await service.execute("SELECT ensure_pool('gpu', false, ARRAY['echo'], $1, 30, 40)", seconds)

    row = await owner.fetchrow("SELECT * FROM pools WHERE name = 'gpu'")
    assert row is not None
    assert (row["lease_seconds"], row["command_seconds"], row["queue_seconds"]) == (200, 30, 40)
    assert (row["accepts_desktop"], row["programs"]) == (False, ["echo"])


# by hand


async def test_a_machine_marked_in_use_by_hand_is_held_by_the_database_user(
    database: Database, owner: asyncpg.Connection
) -> None:
    vm = await machine(database)

    await owner.execute("UPDATE vms SET status = 'in-use' WHERE id = $1", vm.vm.id)

    row = await row_of(owner)
    lease = await lease_of(owner, row["lease_id"])
    assert (lease["email"], lease["kind"], lease["status"], lease["epoch"]) == ("lablink", "hold", "active", 1)
    assert (await vm.hello())["kind"] == "hold"


async def test_an_admin_may_hold_any_number_of_machines(database: Database, owner: asyncpg.Connection) -> None:
    await database.vm("vm-1")
    await database.vm("vm-2")

    await owner.execute("UPDATE vms SET status = 'in-use'")

    assert await owner.fetchval("SELECT count(*) FROM leases WHERE live AND email = 'lablink'") == 2


async def test_a_machine_may_be_held_for_a_person(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await database.vm("vm-1")

    await owner.execute("UPDATE vms SET status = 'in-use', email = $1", ADA)

    lease = await lease_of(owner, (await row_of(owner))["lease_id"])
    assert (lease["email"], lease["kind"], lease["status"]) == (ADA, "hold", "active")
    assert (await ask(service, ADA))["outcome"] == "live"


async def test_a_machine_lent_by_hand_with_a_command_runs_it(database: Database, owner: asyncpg.Connection) -> None:
    vm = await machine(database)

    await owner.execute("UPDATE vms SET status = 'in-use', email = $1, crd_command = $2", ADA, LINE)

    lease = (await row_of(owner))["lease_id"]
    assignment = await vm.claim(1)
    assert (assignment["line"], assignment["command"], assignment["kind"]) == (LINE, None, "desktop")
    await vm.report(lease, 1, "exited", 0)
    assert (await lease_of(owner, lease))["status"] == "active"


async def test_code_and_pin_typed_in_psql_are_blotted_out_wherever_they_may_be_read(
    database: Database, owner: asyncpg.Connection
) -> None:
    await database.vm("vm-1")

    await owner.execute("UPDATE vms SET status = 'in-use', email = $1, crd_command = $2", ADA, LINE)

    for table in ("vms", "leases", "lease_views", "events"):
        text = str(await owner.fetch(f"SELECT t::text FROM {table} t"))
        assert CODE not in text
        assert PIN not in text
    assert "--code=***" in (await row_of(owner))["crd_command"]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("start-host --code='4/0 a' --pin 123456", "start-host --code=*** --pin ***"),
        ('start-host -code="4/0a" -PIN="1 2"', "start-host -code=*** -PIN=***"),
        ("start-host --code = 4/0a\n--pin\n123456", "start-host --code = ***\n--pin\n***"),
        ("start-host --code=“4/0 a” --pin=1", "start-host --code=*** --pin=***"),
        ('start-host --code="4/0a', "start-host --code=***"),
        ("python train.py", "python train.py"),
        ("start-host --name=--code=4/0a", "start-host --name=--code=***"),
        (f"start-host --c\\ode={CODE}", "start-host --c\\ode=***"),
        (f'start-host "--code" {CODE}', 'start-host "--code" ***'),
        (f"start-host $'--code' '{CODE}'", "start-host $'--code' ***"),
    ],
)
async def test_a_line_is_shown_without_what_follows_code_and_pin(
    owner: asyncpg.Connection, line: str, shown: str
) -> None:
    assert await owner.fetchval("SELECT blot_out($1)", line) == shown


async def test_a_job_typed_by_hand_is_a_job(database: Database, owner: asyncpg.Connection) -> None:
    vm = await machine(database)

    await owner.execute("UPDATE vms SET status = 'in-use', email = $1, crd_command = 'python train.py'", ADA)

    assignment = await vm.claim(1)
    assert (assignment["line"], assignment["kind"]) == ("python train.py", "job")
    assert (await row_of(owner))["crd_command"] == "python train.py"


async def test_a_row_inserted_in_use_is_a_lease_too(owner: asyncpg.Connection) -> None:
    await owner.execute(
        "INSERT INTO vms (hostname, email, status, crd_command) VALUES ('i-0abc', $1, 'in-use', $2)", ADA, LINE
    )

    row = await row_of(owner, "i-0abc")
    lease = await lease_of(owner, row["lease_id"])
    assert (lease["status"], lease["epoch"], row["epoch"]) == ("assigned", 1, 1)


async def test_a_queued_lease_may_be_given_a_machine_by_hand(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await database.vm("vm-1")
    await database.age(vm, 60)
    await ask(service, ADA)
    lease = (await ask(service, BOB))["lease_id"]

    await owner.execute("UPDATE vms SET status = 'in-use', lease_id = $1, email = 'x', crd_command = $2", lease, LINE)

    row = await row_of(owner)
    assert (row["email"], row["lease_id"]) == (BOB, lease)
    assert row["crd_command"] == (await lease_of(owner, lease))["crd_command"]
    assert (await lease_of(owner, lease))["status"] == "assigned"
    assert await owner.fetchval("SELECT count(line) FROM lease_secrets") == 0


async def test_a_machine_cannot_be_given_to_a_lease_that_is_over_or_has_one(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await database.vm("vm-1")
    await database.vm("vm-2")
    served = (await ask(service, ADA))["lease_id"]
    over = (await ask(service, BOB))["lease_id"]
    await service.execute("SELECT end_lease($1)", over)
    await owner.execute("UPDATE vms SET status = 'available', cleaned_epoch = epoch WHERE status = 'cleaning'")
    free = await owner.fetchval("SELECT hostname FROM vms WHERE status = 'available'")

    with refused("LL003"):
        await owner.execute("UPDATE vms SET status = 'in-use', lease_id = $1 WHERE hostname = $2", over, free)
    with pytest.raises(asyncpg.UniqueViolationError):
        await owner.execute("UPDATE vms SET status = 'in-use', lease_id = $1 WHERE hostname = $2", served, free)


async def test_a_person_with_a_live_lease_gets_no_second_one_by_hand(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await database.vm("vm-1")
    await database.vm("vm-2")
    await ask(service, ADA)

    with refused("LL003"):
        await owner.execute("UPDATE vms SET status = 'in-use', email = $1 WHERE status = 'available'", ADA)


async def test_one_person_cannot_get_two_machines_in_one_statement(
    database: Database, owner: asyncpg.Connection
) -> None:
    await database.vm("vm-1")
    await database.vm("vm-2")

    with refused("LL003"):
        await owner.execute("UPDATE vms SET status = 'in-use', email = $1", ADA)


async def test_marking_a_lent_machine_available_releases_it_and_says_so_once(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await lent(database, service)
    await owner.execute("INSERT INTO vms (hostname, status) SELECT 'h' || g, 'in-use' FROM generate_series(1, 9) g")
    words = noticed(owner)

    await owner.execute("UPDATE vms SET status = 'available', email = NULL, crd_command = NULL, updated_at = NOW()")

    assert (await lease_of(owner, lease))["status"] == "ended"
    assert (await vm.hello())["status"] == "cleaning"
    assert len(words) == 1


async def test_a_notice_comes_with_every_statement_that_means_something_else(
    database: Database, owner: asyncpg.Connection
) -> None:
    await database.vm("vm-1")
    words = noticed(owner)

    for _ in range(2):
        await owner.execute("UPDATE vms SET status = 'failed'")
        await owner.execute("UPDATE vms SET status = 'available'")

    assert len(words) == 2


async def test_an_available_machine_that_is_marked_available_stays_so(
    database: Database, owner: asyncpg.Connection
) -> None:
    await database.vm("vm-1")
    words = noticed(owner)

    await owner.execute("UPDATE vms SET status = 'available', email = NULL, crd_command = NULL, updated_at = NOW()")

    assert (await row_of(owner))["status"] == "available"
    assert words == []


async def test_a_machine_that_enrolled_again_cannot_be_made_available_unwiped(
    database: Database, owner: asyncpg.Connection
) -> None:
    await database.vm("vm-1")
    await database.enrol("vm-1")

    await owner.execute("UPDATE vms SET status = 'available'")

    assert (await row_of(owner))["status"] == "cleaning"


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


async def test_deleting_a_lent_machine_fails_its_lease(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await lent(database, service)

    await owner.execute("DELETE FROM vms WHERE hostname = 'vm-1'")

    row = await lease_of(owner, lease)
    assert (row["status"], row["failure"], row["hostname"]) == ("failed", "vm-deleted", "vm-1")
    assert await owner.fetchval("SELECT count(*) FROM vm_heartbeats") == 0


@pytest.mark.parametrize("statement", ["TRUNCATE TABLE vms", "TRUNCATE vms RESTART IDENTITY CASCADE"])
async def test_clearing_all_machines_fails_their_leases_and_keeps_the_queue(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, statement: str
) -> None:
    _, lease = await lent(database, service)
    waiting = (await ask(service, BOB))["lease_id"]

    await owner.execute(statement)
    await database.vm("vm-1")

    assert (await lease_of(owner, lease))["failure"] == "vm-deleted"
    assert (await row_of(owner))["lease_id"] == waiting


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
        "status = 'queued'",
        "status = 'claimed'",
        "status = 'cancelled'",
        "email = 'eve@example.org'",
        "vm_id = vm_id + 1",
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
    assert event["detail"] == '{"from": "available", "epoch": 1, "reason": "fan is broken"}'


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

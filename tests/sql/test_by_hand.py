"""What an admin may do with machines by hand in psql, where all that the web page does follows."""

from uuid import uuid4

import asyncpg
import pytest

from tests.sql.steps import ADA, BOB, CODE, LINE, PIN, ask, claimed, lease_of, lent, machine, noticed, refused, row_of
from tests.support.database import Database


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
    assert (assignment["line"], assignment["command"], assignment["kind"]) == (LINE, None, "typed")
    assert await vm.report(lease, 1, "started", kind="desktop") == "claimed"
    assert await vm.report(lease, 1, "exited", 0, kind="desktop") == "active"
    assert (await lease_of(owner, lease))["kind"] == "desktop"


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


@pytest.mark.parametrize("line", ["python train.py", "echo start-host"])
async def test_a_job_typed_by_hand_is_a_job(database: Database, owner: asyncpg.Connection, line: str) -> None:
    vm = await machine(database)

    await owner.execute("UPDATE vms SET status = 'in-use', email = $1, crd_command = $2", ADA, line)

    assignment = await vm.claim(1)
    assert (assignment["line"], assignment["kind"]) == (line, "typed")
    assert (await row_of(owner))["crd_command"] == line
    assert await vm.report(assignment["lease_id"], 1, "started", kind="job") == "active"


@pytest.mark.parametrize(
    "line", ['"/opt/google/chrome-remote-desktop/start-host" --code=4/0a', "remoting_start_host x"]
)
async def test_a_desktop_typed_in_any_way_is_active_only_after_exit_0(
    database: Database, owner: asyncpg.Connection, line: str
) -> None:
    vm = await machine(database)
    await owner.execute("UPDATE vms SET status = 'in-use', email = $1, crd_command = $2", ADA, line)
    lease = (await vm.claim(1))["lease_id"]

    assert await vm.report(lease, 1, "started", kind="desktop") == "claimed"
    assert await vm.report(lease, 1, "exited", 1, kind="desktop") == "failed"
    assert (await lease_of(owner, lease))["kind"] == "desktop"


@pytest.mark.parametrize("kind", [None, "hold", "typed", ""])
async def test_a_typed_line_cannot_be_reported_started_without_its_kind(
    database: Database, owner: asyncpg.Connection, kind: str | None
) -> None:
    vm = await machine(database)
    await owner.execute("UPDATE vms SET status = 'in-use', crd_command = $1", LINE)
    lease = (await vm.claim(1))["lease_id"]

    with refused("LL003"):
        await vm.report(lease, 1, "exited", 0, kind=kind)


async def test_a_typed_line_that_the_machine_could_not_read_fails_without_a_kind(
    database: Database, owner: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await owner.execute("UPDATE vms SET status = 'in-use', crd_command = 'rm -rf /'")
    lease = (await vm.claim(1))["lease_id"]

    assert await vm.report(lease, 1, "failed", failure="refused") == "failed"
    assert (await lease_of(owner, lease))["kind"] == "typed"


async def test_a_machine_cannot_change_a_kind_that_is_known(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await claimed(database, service)

    assert await vm.report(lease, 1, "started", kind="job") == "claimed"
    assert (await lease_of(owner, lease))["kind"] == "desktop"


@pytest.mark.parametrize(
    ("line", "program"),
    [
        ("python train.py", "python"),
        ("MODE=fast  /usr/bin/rm -rf x", "rm"),
        ("python3 train.py", None),
        ('DISPLAY= /opt/google/chrome-remote-desktop/start-host --code="4/x"', None),
    ],
)
async def test_whoever_lends_a_machine_with_a_program_that_its_pool_does_not_run_is_told(
    database: Database, owner: asyncpg.Connection, line: str, program: str | None
) -> None:
    await machine(database)
    await owner.execute("UPDATE pools SET programs = '{echo,python3}'")
    words = noticed(owner)
    await owner.execute("UPDATE vms SET status = 'in-use', email = $1, crd_command = $2", ADA, line)
    told = [each for each in words if "does not run" in each]
    runs = "It runs: echo, python3, start-host"
    assert told == ([f"The pool default does not run {program}, so this lease will fail. {runs}"] if program else [])


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
    with refused("LL003"):
        await owner.execute("UPDATE vms SET status = 'in-use', lease_id = $1 WHERE hostname = $2", served, free)


async def test_one_lease_cannot_get_two_machines_in_one_statement(
    database: Database, owner: asyncpg.Connection
) -> None:
    await database.vm("vm-1")
    await database.vm("vm-2")
    lease = await owner.fetchval("INSERT INTO leases (email, kind) VALUES ($1, 'job') RETURNING id", ADA)

    for queued_or_new in (lease, uuid4()):
        with refused("LL003"):
            await owner.execute("UPDATE vms SET status = 'in-use', lease_id = $1", queued_or_new)


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
    assert [word for word in words if "cleaned first" not in word] == ["now cleaning: 10 machines; over: 10 leases"]
    assert len(words) == 2


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

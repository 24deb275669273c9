"""What a machine may say (hello, claim, report, cleaned, unhealthy), and what is refused to whoever is behind."""

import json
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.sql.steps import ADA, BOB, CODE, PIN, REDIRECT, Machine, ask, lease_of, machine, refused, row_of
from tests.support.database import Database

HIGHEST = 10**15


async def claimed(
    database: Database, service: asyncpg.Connection, argv: list[str] | None = None
) -> tuple[Machine, UUID]:
    """A machine that claimed Ada's desktop, or the job `argv`, at epoch 1."""
    if argv:
        await service.execute("SELECT ensure_pool('default', true, $1, 600, 90, 600)", argv[:1])
    vm = await machine(database)
    await ask(service, ADA, argv=argv)
    return vm, (await vm.claim(1))["lease_id"]


# hello


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

    assert await owner.fetchval("SELECT clock() - seen_at < interval '5 seconds' FROM vm_heartbeats")


async def test_a_hello_that_brings_no_news_changes_nothing(database: Database, owner: asyncpg.Connection) -> None:
    vm = await machine(database)
    before = (await row_of(owner), await owner.fetchval("SELECT max(id) FROM events"))

    await vm.hello(0)
    await vm.hello(None)

    assert (await row_of(owner), await owner.fetchval("SELECT max(id) FROM events")) == before


async def test_the_larger_the_fleet_the_rarer_the_hellos(database: Database, owner: asyncpg.Connection) -> None:
    vm = await machine(database)
    await owner.execute("INSERT INTO vm_heartbeats SELECT g, clock() FROM generate_series(100, 1099) g")
    await owner.execute("ANALYZE vm_heartbeats")

    assert (await vm.hello())["period_seconds"] == pytest.approx(1001 / 50)


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


# a database that was restored to an earlier time


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
    assert (await row_of(owner))["reason"] == "smells of smoke"


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

    await ask(service)
    orders = await vm.hello(HIGHEST + 1, uuid4())
    await vm.cleaned(orders["epoch"])

    assert orders["epoch"] == HIGHEST + 2
    assert await service.fetchval("SELECT retire_vm('vm-1')") == "retired"


# claim


async def test_a_claim_hands_over_the_command_and_its_secrets(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await service.execute("SELECT ensure_pool('default', true, ARRAY['echo'], 600, 77, 600)")
    vm = await machine(database)
    answer = await ask(service)

    assignment = await vm.claim(1)

    assert (assignment["lease_id"], assignment["epoch"], assignment["kind"]) == (answer["lease_id"], 1, "desktop")
    assert json.loads(assignment["command"]) == {"redirect_url": REDIRECT}
    assert json.loads(assignment["secrets"]) == {"code": CODE, "pin": PIN}
    assert (assignment["line"], assignment["accepts_desktop"], assignment["programs"]) == (None, True, ["echo"])
    assert assignment["limit_seconds"] == 77.0
    assert (await lease_of(owner, answer["lease_id"]))["status"] == "claimed"


async def test_a_claim_may_be_repeated_until_the_command_has_started(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await claimed(database, service)

    again = await vm.claim(1)
    await vm.report(lease, 1, "started")

    assert json.loads(again["secrets"])["code"] == CODE
    with refused("LL008"):
        await vm.claim(1)


async def test_a_claim_at_an_old_epoch_is_refused(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await ask(service)

    for epoch in (0, 2):
        with refused("LL001"):
            await vm.claim(epoch)


async def test_a_machine_without_an_assignment_has_nothing_to_claim(
    database: Database, owner: asyncpg.Connection
) -> None:
    vm = await machine(database)

    with refused("LL008"):
        await vm.claim(0)


async def test_a_machine_that_an_admin_took_by_hand_has_nothing_to_claim_or_report(
    database: Database, owner: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await owner.execute("UPDATE vms SET status = 'in-use'")
    lease = (await row_of(owner))["lease_id"]

    with refused("LL008"):
        await vm.claim(1)
    with refused("LL008"):
        await vm.report(lease, 1, "started")


# report


async def test_a_desktop_is_active_once_its_command_has_exited_with_0(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await claimed(database, service)

    started = await vm.report(lease, 1, "started")
    exited = await vm.report(lease, 1, "exited", 0, "Host started successfully.")

    row = await lease_of(owner, lease)
    assert (started, exited, row["status"], row["exit_code"]) == ("claimed", "active", "active", 0)
    assert row["output"] == "Host started successfully."
    assert row["deadline"] is None


async def test_a_desktop_command_that_exits_otherwise_fails_the_lease_and_the_machine_is_cleaned(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await claimed(database, service)

    status = await vm.report(lease, 1, "exited", 1, "OAuth error.", "code-used")

    row = await lease_of(owner, lease)
    assert (status, row["failure"], row["exit_code"]) == ("failed", "code-used", 1)
    assert ((await row_of(owner))["status"], (await row_of(owner))["epoch"]) == ("cleaning", 2)


async def test_a_failure_without_a_name_is_the_commands(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await claimed(database, service)

    await vm.report(lease, 1, "exited", 1)

    assert (await lease_of(owner, lease))["failure"] == "command-failed"


async def test_a_job_is_active_once_it_has_started_and_keeps_its_machine_when_it_ends(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await claimed(database, service, ["python3", "train.py"])

    started = await vm.report(lease, 1, "started")
    exited = await vm.report(lease, 1, "exited", 3, "Traceback …")

    row = await lease_of(owner, lease)
    assert (started, exited, row["exit_code"], row["output"]) == ("active", "active", 3, "Traceback …")
    assert (await row_of(owner))["status"] == "in-use"


@pytest.mark.parametrize(
    ("outcome", "named", "failure"), [("failed", "timed-out", "timed-out"), ("unknown", None, "unknown")]
)
async def test_a_command_that_did_not_end_or_whose_end_is_unknown_fails_the_lease(
    database: Database,
    owner: asyncpg.Connection,
    service: asyncpg.Connection,
    outcome: str,
    named: str | None,
    failure: str,
) -> None:
    vm, lease = await claimed(database, service)

    assert await vm.report(lease, 1, outcome, failure=named) == "failed"

    assert (await lease_of(owner, lease))["failure"] == failure


@pytest.mark.parametrize("outcome", ["started", "failed"])
async def test_code_and_pin_are_forgotten_when_the_command_was_delivered(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, outcome: str
) -> None:
    vm, lease = await claimed(database, service)

    await vm.report(lease, 1, outcome)

    assert await owner.fetchval("SELECT count(*) FROM lease_secrets") == 0


async def test_a_report_may_be_repeated(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await claimed(database, service)
    first = [await vm.report(lease, 1, "started"), await vm.report(lease, 1, "exited", 0, "done")]
    events = await owner.fetchval("SELECT max(id) FROM events")

    again = [await vm.report(lease, 1, "started"), await vm.report(lease, 1, "exited", 0, "done")]

    assert (first[-1], set(again)) == ("active", {"active"})
    assert await owner.fetchval("SELECT max(id) FROM events") == events


async def test_what_a_command_printed_is_kept_up_to_its_last_64_ki_characters(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await claimed(database, service)

    await vm.report(lease, 1, "exited", 0, "x" * 1_000_000 + "end")

    output = (await lease_of(owner, lease))["output"]
    assert (len(output), output[-3:]) == (65536, "end")


async def test_a_report_after_the_lease_ended_is_stale(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await claimed(database, service)
    await service.execute("SELECT end_lease($1)", lease)

    with refused("LL001"):
        await vm.report(lease, 1, "exited", 0)

    assert (await lease_of(owner, lease))["status"] == "cancelled"


async def test_a_report_before_the_claim_is_refused(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    answer = await ask(service)

    with refused("LL008"):
        await vm.report(answer["lease_id"], 1, "started")


async def test_a_machine_cannot_report_for_another_one(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await claimed(database, service)
    other = await machine(database, "vm-2")
    await ask(service, BOB)
    await other.claim(1)

    with refused("LL008"):
        await other.report(lease, 1, "failed")

    assert (await lease_of(owner, lease))["status"] == "claimed"


@pytest.mark.parametrize(("outcome", "exit_code"), [("won", 0), (None, 0), ("", 0), ("exited", None)])
async def test_a_report_that_says_nothing_known_is_refused(
    database: Database,
    owner: asyncpg.Connection,
    service: asyncpg.Connection,
    outcome: str | None,
    exit_code: int | None,
) -> None:
    vm, lease = await claimed(database, service)

    with refused("LL003"):
        await vm.report(lease, 1, outcome, exit_code)

    assert await owner.fetchval("SELECT count(*) FROM lease_secrets") == 1


# cleaned, unhealthy


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


async def test_an_unhealthy_machine_is_failed_and_its_lease_with_it(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await claimed(database, service)

    assert await vm.unhealthy(1, f"the disk is full of --code={CODE}") == "failed"

    row, failed = await row_of(owner), await lease_of(owner, lease)
    assert (row["epoch"], row["reason"]) == (2, "unhealthy: the disk is full of --code=***")
    assert (failed["status"], failed["failure"]) == ("failed", "vm-failed")
    assert (await vm.hello())["status"] == "failed"


async def test_an_unhealthy_machine_need_not_say_why_and_may_say_so_twice(
    database: Database, owner: asyncpg.Connection
) -> None:
    vm = await machine(database)

    assert [await vm.unhealthy(0, None), await vm.unhealthy(1, "x" * 10_000)] == ["failed", "failed"]

    assert (await row_of(owner))["reason"] == "unhealthy: no reason given"
    with refused("LL001"):
        await vm.unhealthy(0, "again")


# who calls


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

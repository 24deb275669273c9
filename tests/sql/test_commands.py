"""How a machine claims a command and reports how it goes."""

import json

import asyncpg
import pytest

from tests.sql.steps import BOB, CODE, PIN, REDIRECT, ask, claimed, lease_of, machine, refused, row_of
from tests.support.database import Database


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


async def test_a_desktop_command_that_fails_ends_the_lease_and_the_machine_is_cleaned(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await claimed(database, service)

    status = await vm.report(lease, 1, "exited", 1, "No such host.", "command-failed")

    row = await lease_of(owner, lease)
    assert (status, row["failure"], row["exit_code"]) == ("failed", "command-failed", 1)
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


@pytest.mark.parametrize(("outcome", "failure"), [("failed", "timed-out"), ("unknown", "unknown")])
async def test_a_job_that_did_not_end_or_whose_end_is_unknown_fails_the_lease(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, outcome: str, failure: str
) -> None:
    vm, lease = await claimed(database, service, ["python3", "train.py"])

    assert await vm.report(lease, 1, outcome, failure=failure) == "failed"

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

"""The `lablink` command against a database: what it prints, what it changes, how it fails."""

import getpass
import json
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from tests.support.admin import answer, ask, lablink
from tests.support.database import Database
from tests.support.machine import reached
from tests.support.patient_command import GIVE_UP_AFTER
from tests.support.under_way import started
from tests.support.up import LABLINK, run_lablink


async def test_vms_are_listed_with_who_has_them(database: Database) -> None:
    await database.vm("vm-1")
    await database.vm("vm-2")
    await ask(database, "ada@example.org")

    listed = {vm["hostname"]: vm for vm in await answer(database, "vms", "list")}

    assert listed["vm-1"]["status"] == "in-use"
    assert listed["vm-1"]["email"] == "ada@example.org"
    assert listed["vm-2"]["status"] == "available"
    assert listed["vm-2"]["seen_at"].count(":") >= 2


async def test_what_a_machine_finds_that_stays_with_whoever_has_it_is_listed(database: Database) -> None:
    await database.vm("vm-1")
    await ask(database, "ada@example.org")
    note = """SELECT record_event('vm.unwell', id, hostname, lease_id, '{"reason": "unhealthy: check gpu"}') FROM vms"""
    await (await database.connect()).execute(note)
    assert [vm["reason"] for vm in await answer(database, "vms", "list")] == ["unhealthy: check gpu"]


async def test_a_table_tells_times_in_words_and_cuts_nothing_off(database: Database) -> None:
    email = f"{'a-very-long-name' * 6}@department.university.example.org"
    await database.vm("vm-1")
    await ask(database, email)

    leases = await lablink(database, "leases", "list")

    assert email in leases.stdout
    assert " ago" in leases.stdout or "just now" in leases.stdout
    assert re.search(r" in 5[5-9] min", leases.stdout)


@pytest.mark.parametrize(
    ("command", "advice"), [(["vms", "list"], "lablink up"), (["leases", "list"], "leases list --all")]
)
async def test_an_empty_list_says_what_to_do(database: Database, command: list[str], advice: str) -> None:
    done = await lablink(database, *command)

    assert done.returncode == 0
    assert advice in done.stdout
    assert await answer(database, *command) == []


async def test_a_failed_machine_comes_back_by_way_of_a_cleaning(database: Database) -> None:
    await database.vm("vm-1")

    failed = await lablink(database, "vms", "fail", "vm-1", "--reason", "the disk is noisy")
    shown = await answer(database, "vms", "show", "vm-1")
    returned = await answer(database, "vms", "return", "vm-1")

    by = f"cli:{getpass.getuser()}"
    assert "vm-1 is failed" in failed.stdout
    assert shown["reason"] == f"held by {by}: the disk is noisy"
    assert shown["events"][-1]["actor"] == by
    assert returned == {"hostname": "vm-1", "status": "cleaning"}


async def test_a_machines_last_boot_is_shown_with_its_phases_and_its_pools_usual_one(database: Database) -> None:
    machine = await (await database.vm("vm-1")).connect()
    phases = [["instance", 21.5], ["cloud-init", 40], ["ready-check", 0.5]]
    await machine.execute("SELECT client_api.booted(gen_random_uuid(), $1)", json.dumps(phases))

    shown = await lablink(database, "vms", "show", "vm-1")
    given = await answer(database, "vms", "show", "vm-1")

    assert "62 s: instance 21.5 s, cloud-init 40 s, ready-check 0.5 s; half of its pool" in " ".join(
        shown.stdout.split()
    )
    assert (given["boot"]["seconds"], given["boot"]["phases"]) == (62.0, phases)


async def test_a_credential_is_rotated_and_revoked_and_an_invitation_is_what_comes_next(database: Database) -> None:
    vm = await database.vm("vm-1")
    session = await vm.connect()

    rotated = await lablink(database, "vms", "rotate", "vm-1")
    wanted = await (await vm.connect()).fetchval("SELECT client_api.wants_new_password()")
    revoked = await lablink(database, "vms", "revoke", "vm-1")
    returned = await lablink(database, "vms", "return", "vm-1")

    assert "vm-1 makes itself a new password" in rotated.stdout
    assert wanted
    await reached(session.is_closed)
    assert "lablink vms invite vm-1" in revoked.stdout
    assert returned.returncode == 1
    assert "lablink vms invite vm-1" in returned.stderr


async def test_a_lease_is_found_by_person_and_by_the_beginning_of_its_id(database: Database) -> None:
    await database.vm("vm-1")
    await ask(database, "ada@example.org")
    by_person = await answer(database, "leases", "show", "ada@example.org")

    by_id = await answer(database, "leases", "show", by_person["id"][:8])
    ended = await answer(database, "leases", "end", by_person["id"][:8])

    assert by_id["id"] == by_person["id"]
    assert [event["kind"] for event in by_id["events"]][:1] == ["lease.assigned"]
    assert ended == {"id": by_person["id"], "status": "cancelled"}
    assert await answer(database, "leases", "list") == []


async def test_whoever_waits_or_is_asked_for_a_line_is_listed_with_that(database: Database) -> None:
    await database.vm("vm-1")
    owner = await database.connect()
    await owner.execute("SELECT request_vm('ada@example.org', 'desktop', NULL, NULL, '', sha256('t'), '')")
    for person in ("bob", "cyd"):
        await ask(database, f"{person}@example.org")
    await owner.execute("SELECT sweep_forecasts()")

    listed = {lease["email"][:3]: lease for lease in await answer(database, "leases", "list")}
    shown = await lablink(database, "leases", "show", "cyd@example.org")

    assert [listed[who]["position"] for who in ("ada", "bob", "cyd")] == [None, 1, 2]
    assert [listed[who]["needs_line"] for who in ("ada", "bob", "cyd")] == [True, False, False]
    assert listed["ada"]["kept_until"] and listed["bob"]["likely_at"] < listed["cyd"]["sure_at"]
    assert {"Place", "Likely served"} <= {line[:13].strip() for line in shown.stdout.splitlines()}


async def test_the_latest_lease_of_a_person_is_found_when_it_is_over(database: Database) -> None:
    await database.vm("vm-1")
    await ask(database, "ada@example.org")
    await lablink(database, "leases", "end", "ada@example.org")

    shown = await lablink(database, "leases", "show", "Ada@example.org")
    again = await lablink(database, "leases", "end", "ada@example.org")

    assert "cancelled" in shown.stdout
    assert "Ends" not in shown.stdout
    assert "is cancelled already" in again.stdout


async def test_an_admin_reads_why_a_lease_failed_as_its_holder_does(database: Database) -> None:
    await database.vm("vm-1")
    await ask(database, "ada@example.org")
    await (await database.connect()).execute("UPDATE leases SET status = 'failed', failure = 'vm-failed'")

    shown = await lablink(database, "leases", "show", "ada@example.org")

    assert "vm-failed" in shown.stdout
    assert "The machine was taken out of service." in shown.stdout


async def test_an_invitation_prints_the_token_once_and_keeps_only_its_hash(database: Database) -> None:
    invited = await lablink(database, "vms", "invite", "vm-9")
    token = invited.stdout.strip()

    owner = await database.connect()
    kept = await owner.fetchrow(
        "SELECT hostname, token_sha256 = sha256($1::bytea) AS same FROM join_tokens", token.encode()
    )

    assert len(token) >= 43
    assert kept is not None and kept["hostname"] == "vm-9" and kept["same"]
    assert "lablink-client install --url http://127.0.0.1:8000 --token-file FILE" in invited.stderr
    assert token not in invited.stderr


async def test_an_invitation_in_the_name_of_a_machine_that_serves_is_asked_about(database: Database) -> None:
    await database.vm("vm-1")

    kept = await lablink(database, "vms", "invite", "vm-1")
    invited = await lablink(database, "vms", "invite", "vm-1", "--yes")

    assert (kept.returncode, kept.stdout) == (1, "")
    assert "vm-1 is available" in kept.stderr and "--yes" in kept.stderr
    assert invited.returncode == 0


async def test_a_name_that_no_machine_may_have_is_refused_in_a_sentence(database: Database) -> None:
    done = await lablink(database, "vms", "invite", "a b")

    assert done.returncode == 1
    assert "letters, digits" in done.stderr
    assert "constraint" not in done.stderr


@asynccontextmanager
async def locked(database: Database, statement: str) -> AsyncIterator[asyncpg.transaction.Transaction]:
    """An open transaction of an admin in psql, after a statement."""
    admin = await database.connect("lablink", application_name="psql")
    transaction = admin.transaction()
    await transaction.start()
    await admin.execute(statement)
    yield transaction


async def test_a_command_that_waits_for_a_lock_says_whose_it_is_and_goes_on_when_it_is_free(database: Database) -> None:
    await database.vm("vm-1")
    async with locked(database, "SELECT FROM vms FOR UPDATE") as transaction:
        process = await started(database, "vms", "fail", "vm-1")
        assert process.stderr
        said = (await process.stderr.readline()).decode()
        await transaction.rollback()
        output, _ = await process.communicate()

    assert "psql of lablink" in said
    assert process.returncode == 0
    assert b"vm-1 is failed" in output


async def test_a_command_gives_up_on_a_lock_and_says_how_to_free_it(database: Database) -> None:
    await database.vm("vm-1")
    async with locked(database, "SELECT FROM vms FOR UPDATE"):
        done = await lablink(database, "vms", "fail", "vm-1", **{GIVE_UP_AFTER: "8"})

    assert done.returncode == 1
    assert "pg_terminate_backend" in done.stderr
    assert (await answer(database, "vms", "show", "vm-1"))["status"] == "available"


@pytest.mark.parametrize(
    "command",
    [
        ["vms", "fail"],
        ["vms", "drain"],
        ["vms", "retire"],
        ["vms", "return"],
        ["vms", "show"],
        ["leases", "end"],
        ["events", "--vm"],
    ],
)
async def test_what_is_not_there_is_one_sentence_and_exit_code_4(database: Database, command: list[str]) -> None:
    done = await lablink(database, *command, "nothing")

    assert done.returncode == 4
    assert done.stderr.startswith("There is no ")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


async def test_a_refused_change_is_told_with_its_hint(database: Database) -> None:
    await database.vm("vm-1")
    owner = await database.connect()
    await owner.execute("SELECT retire_vm('vm-1')")

    done = await lablink(database, "vms", "fail", "vm-1")

    assert done.returncode == 1
    assert done.stderr.startswith("VM vm-1 is retired")
    assert "lablink vms invite vm-1" in done.stderr


async def test_a_machine_is_retired_and_whoever_has_it_is_asked_about(database: Database) -> None:
    await database.vm("vm-1")
    await database.vm("vm-2")
    await ask(database, "ada@example.org")

    kept = await lablink(database, "vms", "retire", "vm-1")
    free = await answer(database, "vms", "retire", "vm-2")
    lent = await answer(database, "vms", "retire", "vm-1", "--yes")

    assert kept.returncode == 1
    assert "ada@example.org loses it" in kept.stderr
    assert free == {"hostname": "vm-2", "status": "retired"}
    assert lent == {"hostname": "vm-1", "status": "retired"}
    assert await answer(database, "vms", "list") == []


def test_asking_for_help_loads_nothing_heavy() -> None:
    heavy = "{'asyncpg', 'alembic', 'fastapi', 'hydra', 'pydantic', 'sqlalchemy', 'uvicorn', 'rich.table'}"
    code = f"import sys, allocator.cli; print(sorted({heavy} & sys.modules.keys()))"

    done = subprocess.run([LABLINK.with_name("python"), "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_the_commands_of_db_stand_under_what_they_are_about() -> None:
    told = run_lablink("db", "--help").stdout
    backups = told.partition("─ Backups ─")[2].partition("╰")[0]

    named = {line.split()[1] for line in backups.splitlines() if re.match(r"│ [a-z]", line)}
    assert named == {"backup", "backups", "rehearse", "restore"}


def test_the_version_is_printed() -> None:
    assert run_lablink("--version").stdout.startswith("lablink 0.")

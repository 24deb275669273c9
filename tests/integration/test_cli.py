"""The `lablink` command against a database: what it prints, what it changes, how it fails."""

import asyncio
import getpass
import json
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.support.database import PASSWORDS, Database
from tests.support.up import LABLINK, run_lablink

Done = subprocess.CompletedProcess[str]


def place(database: Database) -> list[str]:
    """The settings that lead the command to a test's database."""
    parts = urlsplit(database.dsn("lablink"))
    return [
        f"--set=database.host={parts.hostname}",
        f"--set=database.port={parts.port}",
        f"--set=database.name={database.name}",
        "--set=database.owner.password=env:OWNER",
    ]


async def lablink(database: Database, *arguments: str) -> Done:
    """Run a command on the database to its end."""
    return await asyncio.to_thread(run_lablink, *arguments, *place(database), OWNER=PASSWORDS["lablink"])


async def answer(database: Database, *arguments: str) -> Any:
    """What a command prints with --json."""
    done = await lablink(database, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def ask(database: Database, email: str, program: str = "echo") -> None:
    """Somebody asks for a machine that runs a program."""
    owner = await database.connect()
    await owner.execute("SELECT ensure_pool('default', true, ARRAY['echo'], 3600, 60, 3600)")
    await owner.execute(
        "SELECT request_vm($1, 'job', $2, NULL, $3, '', '')", email, json.dumps({"argv": [program]}), program
    )


async def test_vms_are_listed_with_who_has_them(database: Database) -> None:
    await database.vm("vm-1")
    await database.vm("vm-2")
    await ask(database, "ada@example.org")

    listed = {vm["hostname"]: vm for vm in await answer(database, "vms", "list")}

    assert listed["vm-1"]["status"] == "in-use"
    assert listed["vm-1"]["email"] == "ada@example.org"
    assert listed["vm-2"]["status"] == "available"
    assert listed["vm-2"]["seen_at"].count(":") >= 2


async def test_a_table_tells_times_in_words_and_cuts_nothing_off(database: Database) -> None:
    email = f"{'a-very-long-name' * 6}@department.university.example.org"
    await database.vm("vm-1")
    await ask(database, email)

    leases = await lablink(database, "leases", "list")

    assert email in leases.stdout
    assert " ago" in leases.stdout or "just now" in leases.stdout
    assert "in 59 min" in leases.stdout


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


async def test_a_credential_is_rotated_and_revoked_and_an_invitation_is_what_comes_next(database: Database) -> None:
    vm = await database.vm("vm-1")
    session = await vm.connect()

    rotated = await lablink(database, "vms", "rotate", "vm-1")
    wanted = await (await vm.connect()).fetchval("SELECT client_api.wants_new_password()")
    revoked = await lablink(database, "vms", "revoke", "vm-1")
    returned = await lablink(database, "vms", "return", "vm-1")

    assert "vm-1 makes itself a new password" in rotated.stdout
    assert wanted
    assert session.is_closed()
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
    assert [event["kind"] for event in by_id["events"]][:1] == ["lease.queued"]
    assert ended == {"id": by_person["id"], "status": "cancelled"}
    assert await answer(database, "leases", "list") == []


async def test_the_latest_lease_of_a_person_is_found_when_it_is_over(database: Database) -> None:
    await database.vm("vm-1")
    await ask(database, "ada@example.org")
    await lablink(database, "leases", "end", "ada@example.org")

    shown = await lablink(database, "leases", "show", "Ada@example.org")
    again = await lablink(database, "leases", "end", "ada@example.org")

    assert "cancelled" in shown.stdout
    assert "Ends" not in shown.stdout
    assert "is cancelled already" in again.stdout


async def test_an_invitation_prints_the_token_once_and_keeps_only_its_hash(database: Database) -> None:
    invited = await lablink(database, "vms", "invite", "vm-9")
    token = invited.stdout.strip()

    owner = await database.connect()
    kept = await owner.fetchrow(
        "SELECT hostname, token_sha256 = sha256($1::bytea) AS same FROM join_tokens", token.encode()
    )

    assert len(token) >= 43
    assert kept is not None and kept["hostname"] == "vm-9" and kept["same"]


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
        done = await lablink(database, "vms", "fail", "vm-1")

    assert done.returncode == 1
    assert "pg_terminate_backend" in done.stderr
    assert (await answer(database, "vms", "show", "vm-1"))["status"] == "available"


@pytest.mark.parametrize(
    "command",
    [["vms", "fail"], ["vms", "retire"], ["vms", "return"], ["vms", "show"], ["leases", "end"], ["events", "--vm"]],
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


async def test_verify_finds_nothing_wrong_with_a_new_database(database: Database) -> None:
    await database.vm("vm-1")
    await ask(database, "ada@example.org")

    done = await lablink(database, "verify")

    assert done.returncode == 0, done.stdout
    assert done.stdout.strip() == "Everything is as it must be."


async def test_verify_names_what_is_wrong(database: Database) -> None:
    superuser = await database.connect("postgres")
    await superuser.execute("ALTER TABLE vms DISABLE TRIGGER vm_guard_trigger")
    await superuser.execute("GRANT SELECT ON vms TO lablink_client")
    await superuser.execute("GRANT EXECUTE ON FUNCTION retire_vm TO PUBLIC")

    done = await lablink(database, "verify", "--json")

    assert done.returncode == 1
    assert [row["what"] for row in json.loads(done.stdout)] == [
        "Everybody may EXECUTE function public.retire_vm(text), and LabLink does not need that.",
        "The trigger vm_guard_trigger on public.vms is off.",
        "lablink_client may SELECT table public.vms, and LabLink does not need that.",
    ]


async def test_verify_compares_the_triggers_with_those_that_a_migrate_makes(database: Database) -> None:
    superuser = await database.connect("postgres")
    await superuser.execute("ALTER TABLE vms DISABLE TRIGGER vm_follow_update_trigger")
    await superuser.execute("ALTER TABLE leases ENABLE REPLICA TRIGGER lease_guard_trigger")
    await superuser.execute("DROP TRIGGER events_guard_trigger ON events")
    await superuser.execute(
        "CREATE TRIGGER theirs BEFORE UPDATE ON pools "
        "FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"
    )

    done = await lablink(database, "verify", "--json")

    assert [row["what"] for row in json.loads(done.stdout)] == [
        "The trigger events_guard_trigger on public.events is missing.",
        "The trigger lease_guard_trigger on public.leases is off.",
        "The trigger theirs on public.pools is not one of LabLink's.",
        "The trigger vm_follow_update_trigger on public.vms is off.",
    ]


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


async def test_the_history_of_versions_says_which_are_applied(database: Database) -> None:
    steps = await answer(database, "db", "history")

    assert steps and all(step["applied"] for step in steps)


async def test_a_database_goes_down_and_up_again(database: Database) -> None:
    down = await lablink(database, "db", "downgrade", "base", "--yes")
    broken = await lablink(database, "vms", "list")
    up = await lablink(database, "db", "migrate")

    assert down.returncode == 0, down.stderr
    assert broken.returncode == 1
    assert "lablink db migrate" in broken.stderr
    assert up.returncode == 0, up.stderr
    assert await answer(database, "vms", "list") == []


async def test_the_url_is_one_that_psql_takes_and_the_shell_opens_it(database: Database) -> None:
    url = (await lablink(database, "db", "url")).stdout.strip()
    query = "SELECT current_user"

    by_url = await asyncio.to_thread(subprocess.run, ["psql", url, "-Atc", query], capture_output=True, text=True)
    by_shell = await lablink(database, "db", "shell", "-Atc", query)

    assert by_url.stdout.strip() == "lablink"
    assert by_shell.stdout.strip() == "lablink"


async def test_the_shell_shows_a_refusal_in_two_lines(database: Database) -> None:
    refused = await lablink(database, "db", "shell", "-c", "DELETE FROM sweeps")

    assert [line.split(":")[0] for line in refused.stderr.splitlines()] == ["ERROR", "HINT"]


async def test_the_shell_is_the_psql_beside_the_server_and_not_another_one_on_the_path(
    database: Database, tmp_path: Path
) -> None:
    (tmp_path / "psql").write_text("#!/bin/sh\necho another one\n")
    (tmp_path / "psql").chmod(0o755)
    there = {"OWNER": PASSWORDS["lablink"], "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    done = await asyncio.to_thread(run_lablink, "db", "shell", "-Atc", "SELECT 1", *place(database), **there)

    assert done.stdout.strip() == "1"


@pytest.mark.parametrize("command", ["vms list", "verify", "db history", "db migrate", "db shell", "events --follow"])
def test_a_database_that_is_away_is_one_sentence_and_exit_code_3(command: str) -> None:
    away = ["--set=database.port=1", "--set=database.owner.password=env:OWNER"]

    done = run_lablink(*command.split(), *away, OWNER="x")

    assert done.returncode == 3
    assert done.stderr.startswith("The database does not answer (connection refused).")
    assert len(done.stderr.splitlines()) == 1


def test_a_database_that_takes_connections_and_says_nothing_is_given_up_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        there = [f"--set=database.port={silent.getsockname()[1]}", "--set=database.owner.password=env:OWNER"]
        done = run_lablink("db", "history", *there, OWNER="x")

    assert done.returncode == 3
    assert "not in time" in done.stderr


def test_nothing_that_says_which_database_is_exit_code_2_and_advice(tmp_path: Path) -> None:
    done = run_lablink("vms", "list", f"--data-dir={tmp_path}")

    assert done.returncode == 2
    assert "lablink up" in done.stderr


async def test_a_wrong_password_is_exit_code_3_and_not_shown(database: Database) -> None:
    done = await asyncio.to_thread(run_lablink, "vms", "list", *place(database), OWNER="not-the-password")

    assert done.returncode == 3
    assert "not-the-password" not in done.stderr


def test_a_wrong_setting_is_exit_code_2_and_its_name() -> None:
    done = run_lablink("vms", "list", "--set=database.prot=1")

    assert done.returncode == 2
    assert "database.prot" in done.stderr
    assert "port" in done.stderr


async def started(database: Database, *arguments: str) -> asyncio.subprocess.Process:
    """A command under way."""
    return await asyncio.create_subprocess_exec(
        LABLINK,
        *arguments,
        *place(database),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OWNER": PASSWORDS["lablink"]},
    )


@asynccontextmanager
async def following(database: Database, *arguments: str) -> AsyncIterator[asyncio.StreamReader]:
    """The output of a command that goes on until the end of the block."""
    process = await started(database, *arguments)
    assert process.stdout
    try:
        yield process.stdout
    finally:
        process.terminate()
        await process.communicate()


@pytest.mark.parametrize("command", ["events --follow", "vms watch", "vms watch --json"])
async def test_what_follows_ends_quietly_with_ctrl_c(database: Database, command: str) -> None:
    await database.vm("vm-1")
    process = await started(database, *command.split())
    assert process.stdout

    await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, complaints = await process.communicate()

    assert (process.returncode, complaints) == (130, b"")


@pytest.mark.parametrize("command", ["events --follow", "vms watch", "events --json", "vms list", "vms show vm-1"])
async def test_a_reader_that_has_seen_enough_ends_the_command_quietly(database: Database, command: str) -> None:
    await database.vm("vm-1")
    reads, writes = os.pipe()
    os.close(reads)
    there = {**os.environ, "OWNER": PASSWORDS["lablink"]}

    process = await asyncio.create_subprocess_exec(
        LABLINK, *command.split(), *place(database), stdout=writes, stderr=subprocess.PIPE, env=there
    )
    os.close(writes)
    _, complaints = await process.communicate()

    assert complaints == b""


async def line(stream: asyncio.StreamReader) -> Any:
    """The next line of JSON, under a limit."""
    async with asyncio.timeout(20):
        return json.loads(await stream.readline())


async def test_events_are_followed_as_they_happen_and_resumed_where_they_stopped(database: Database) -> None:
    owner = await database.connect()
    await database.vm("vm-1")
    async with following(database, "events", "--follow", "--json") as events:
        first = [(await line(events))["kind"] for _ in range(3)]
        await owner.execute("SELECT fail_vm('vm-1', 'held')")
        last = await line(events)
    await owner.execute("SELECT return_vm('vm-1')")

    async with following(database, "events", "--follow", "--json", f"--after={last['id']}") as events:
        resumed = await line(events)

    assert first == ["vm.invited", "vm.booting", "vm.available"]
    assert last["kind"] == "vm.failed"
    assert resumed["kind"] == "vm.cleaning"


async def test_an_event_committed_after_a_later_one_is_still_followed(database: Database) -> None:
    await database.vm("vm-1")
    await database.vm("vm-2")
    slow, quick = await database.connect(), await database.connect()
    transaction = slow.transaction()
    await transaction.start()
    await slow.execute("SELECT fail_vm('vm-1', 'held')")

    async with following(database, "events", "--follow", "--json", "--limit=1") as events:
        await line(events)
        await quick.execute("SELECT fail_vm('vm-2', 'held')")
        later = await line(events)
        await transaction.commit()
        earlier = await line(events)

    assert (later["hostname"], earlier["hostname"]) == ("vm-2", "vm-1")
    assert earlier["id"] < later["id"]


async def test_following_goes_on_after_its_connection_was_killed(database: Database) -> None:
    owner = await database.connect()
    await database.vm("vm-1")
    async with following(database, "events", "--follow", "--json", "--limit=1") as events:
        await line(events)
        killed = await owner.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE application_name = 'lablink cli' AND datname = current_database()"
        )
        await owner.execute("SELECT fail_vm('vm-1', 'held')")
        last = await line(events)

    assert killed == 1
    assert last["kind"] == "vm.failed"


async def test_watching_prints_each_change_of_a_machine_once(database: Database) -> None:
    owner = await database.connect()
    await database.vm("vm-1")
    async with following(database, "vms", "watch", "--json") as changes:
        before = await line(changes)
        await owner.execute("SELECT fail_vm('vm-1', 'held')")
        after = await line(changes)
        await owner.execute("DELETE FROM vms")
        gone = await line(changes)

    assert [change["status"] for change in (before, after, gone)] == ["available", "failed", "gone"]


def test_asking_for_help_loads_nothing_heavy() -> None:
    heavy = "{'asyncpg', 'alembic', 'fastapi', 'hydra', 'pydantic', 'sqlalchemy', 'uvicorn', 'rich.table'}"
    code = f"import sys, allocator.cli; print(sorted({heavy} & sys.modules.keys()))"

    done = subprocess.run([LABLINK.with_name("python"), "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_the_version_is_printed() -> None:
    assert run_lablink("--version").stdout.startswith("lablink 0.")

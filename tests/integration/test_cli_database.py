"""How the `lablink` command finds, opens and upgrades its database; what it says of one that is away."""

import asyncio
import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.admin import answer, lablink, place
from tests.support.database import PASSWORDS, Database
from tests.support.patient_command import CONNECT_SECONDS
from tests.support.up import run_lablink


async def test_the_history_of_versions_says_which_are_applied(database: Database) -> None:
    steps = await answer(database, "db", "history")

    assert steps and all(step["applied"] for step in steps)


@pytest.mark.parametrize(("name", "secret"), [("nothing", PASSWORDS["lablink"]), (None, "wrong")])
async def test_who_is_not_let_in_is_told_of_deploy(database: Database, name: str | None, secret: str) -> None:
    dsn = database.dsn("lablink").replace(database.name, name or database.name)

    done = await asyncio.to_thread(run_lablink, "vms", "list", *place(dsn), OWNER=secret)

    assert done.returncode == 3
    assert done.stderr.startswith("The database does not let us in: ")
    assert done.stderr.endswith("lablink db deploy\n") or "Make it: lablink db deploy." in done.stderr


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

    done = await asyncio.to_thread(
        run_lablink, "db", "shell", "-Atc", "SELECT 1", *place(database.dsn("lablink")), **there
    )

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
        done = run_lablink("db", "history", *there, OWNER="x", **{CONNECT_SECONDS: "0.5"})

    assert done.returncode == 3
    assert "not in time" in done.stderr


def test_nothing_that_says_which_database_is_exit_code_2_and_advice(tmp_path: Path) -> None:
    done, nothing = (run_lablink("vms", "list", *given) for given in ([f"--data-dir={tmp_path}"], []))

    assert (done.returncode, "is it the right --data-dir?" in done.stderr) == (2, True)
    assert (nothing.returncode, "Give --data-dir of a `lablink up`" in nothing.stderr) == (2, True)


async def test_a_wrong_password_is_exit_code_3_and_not_shown(database: Database) -> None:
    done = await asyncio.to_thread(
        run_lablink, "vms", "list", *place(database.dsn("lablink")), OWNER="not-the-password"
    )

    assert done.returncode == 3
    assert "not-the-password" not in done.stderr


def test_a_wrong_setting_is_exit_code_2_and_its_name() -> None:
    done = run_lablink("vms", "list", "--set=database.prot=1")

    assert done.returncode == 2
    assert "database.prot" in done.stderr
    assert "port" in done.stderr


def test_only_what_lablink_up_made_is_started_with_it(tmp_path: Path) -> None:
    (tmp_path / "overrides").write_text("database.port=1\ndatabase.owner.password=env:OWNER\n")

    settings_only = run_lablink("vms", "list", f"--data-dir={tmp_path}", OWNER="x")
    (tmp_path / "up.lock").touch()
    of_up = run_lablink("vms", "list", f"--data-dir={tmp_path}", OWNER="x")

    assert settings_only.stderr.endswith("Check database.host and database.port.\n")
    assert of_up.stderr.endswith(f"Start it: lablink up --data-dir {tmp_path}\n")

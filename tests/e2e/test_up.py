"""`lablink up` does the main job: ask over HTTP, and the command has run on a machine."""

import os
import re
import shutil
import socket
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from tests.support.service import NO_TLS
from tests.support.up import RunningUp, free_port, open_directory, run_lablink, running_up, until

pytestmark = pytest.mark.timeout(240)  # some start all of LabLink two or three times

DESKTOP = (
    'DISPLAY= /opt/google/chrome-remote-desktop/start-host --code="4/{code}" '
    '--redirect-url="https://remotedesktop.google.com/_/oauthredirect" --name=$(hostname) --pin=123456'
)


def ask(up: RunningUp, command: str) -> tuple[str, dict[str, str]]:
    """Ask for a machine; returns the lease's address and the headers that open it."""
    person = f"{uuid4().hex}@example.org"
    answer = httpx.post(
        f"{up.url}/api/v1/leases", json={"email": person, "crd_command": command}, timeout=60, verify=NO_TLS
    )
    assert answer.status_code == 201, answer.text
    lease = answer.json()
    return f"{up.url}/api/v1/leases/{lease['id']}", {"Authorization": f"Bearer {lease['token']}"}


def becomes(address: str, key: dict[str, str], seconds: float = 60, **wanted: object) -> dict[str, Any]:
    """The lease, once it has the values that are wanted, within so many seconds."""

    def look() -> dict[str, Any] | None:
        lease: dict[str, Any] = httpx.get(address, headers=key, timeout=60, verify=NO_TLS).json()
        return lease if {name: lease.get(name) for name in wanted} == wanted else None

    return until(look, f"the lease to have {wanted}", seconds)


def end(address: str, key: dict[str, str]) -> None:
    """Give the machine back."""
    assert httpx.delete(address, headers=key, timeout=60).is_success


def test_it_says_how_long_the_start_took(up: RunningUp) -> None:
    line = up.hears("Ready in")
    print(line)

    assert re.search(r"Ready in \d+\.\d s\.", line)


def test_a_request_becomes_an_active_lease_whose_command_ran(up: RunningUp) -> None:
    address, key = ask(up, "echo hello from the machine")

    lease = becomes(address, key, status="active", exit_code=0)
    row = up.json("leases", "show", lease["id"])
    end(address, key)

    assert row["output"].strip() == "hello from the machine"
    assert row["hostname"] == lease["hostname"]
    steps = [event["kind"] for event in row["events"] if event["kind"].startswith("lease.")]
    assert steps[:3] == ["lease.assigned", "lease.claimed", "lease.active"]


def test_the_stand_in_for_start_host_starts_a_desktop_and_no_code_is_kept(up: RunningUp) -> None:
    code = uuid4().hex
    address, key = ask(up, DESKTOP.format(code=code))

    lease = becomes(address, key, status="active")
    row = up.json("leases", "show", lease["id"])
    end(address, key)

    assert row["exit_code"] == 0
    assert "Host started successfully." in row["output"]
    assert code not in str(row)
    logs = [*up.data_dir.glob("*.log"), *up.data_dir.glob("logs/*.log")]
    assert logs
    assert not [path for path in logs if code in path.read_text(errors="replace")]


def test_who_comes_with_a_used_code_is_asked_for_another_one(up: RunningUp) -> None:
    address, key = ask(up, DESKTOP.format(code="expired-long-ago"))

    assert becomes(address, key, status="assigned", needs_line=True)["trouble"] == "code-used"
    end(address, key)


def test_a_machine_is_cleaned_and_available_again_after_a_lease(up: RunningUp) -> None:
    address, key = ask(up, """python3 -c "open('left-behind', 'w')\"""")
    hostname = becomes(address, key, status="active", exit_code=0)["hostname"]

    end(address, key)

    until(lambda: up.json("vms", "show", hostname)["status"] == "available", f"{hostname} to be available")
    left = [names for _, _, names in os.walk(up.data_dir / "vms") if "left-behind" in names]
    assert not left


def test_every_promise_is_kept(up: RunningUp) -> None:
    done = up.lablink("verify")

    assert done.returncode == 0, done.stdout


def test_a_second_up_on_the_same_directory_is_refused_in_one_sentence(up: RunningUp) -> None:
    done = run_lablink("up", f"--data-dir={up.data_dir}", f"--port={free_port()}")

    assert done.returncode == 1
    assert "in use by another" in done.stderr
    assert str(up.process.pid) in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_busy_port_is_one_sentence() -> None:
    with open_directory() as directory, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        for place in (directory, directory / "new"):
            done = run_lablink("up", f"--data-dir={place}", f"--port={port}")

            assert done.returncode == 1
            assert f"Port {port}" in done.stderr
            assert len(done.stderr.splitlines()) == 1
            assert not list(directory.iterdir())


def test_somebody_elses_directory_is_refused_in_one_sentence_and_left_alone() -> None:
    with open_directory() as directory:
        (directory / "thesis.txt").write_text("precious")

        done = run_lablink("up", f"--data-dir={directory}", f"--port={free_port()}")

        assert [path.name for path in directory.iterdir()] == ["thesis.txt"]
    assert done.returncode == 1
    assert "holds something else" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_broken_directory_is_one_sentence() -> None:
    with open_directory() as directory:
        (directory / "file").touch()

        done = run_lablink("up", f"--data-dir={directory / 'file'}", f"--port={free_port()}")

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


def test_no_postgresql_is_one_sentence() -> None:
    with open_directory() as directory:
        (directory / "up.lock").touch()
        (directory / "postgres").mkdir()
        (directory / "postgres" / "PG_VERSION").write_text("9\n")

        done = run_lablink("up", f"--data-dir={directory}", f"--port={free_port()}")

    assert done.returncode == 1
    assert "PostgreSQL 9" in done.stderr
    assert len(done.stderr.splitlines()) == 1


async def test_a_database_that_refuses_its_pool_is_one_sentence() -> None:
    with open_directory() as directory:
        with running_up(directory, "--vms=0") as up:
            owner = await asyncpg.connect(up.dsn())
            await owner.execute("UPDATE pools SET programs = '{}'")
            await owner.execute("ALTER TABLE pools ADD CONSTRAINT no_programs CHECK (programs = '{}')")
            await owner.close()

        done = run_lablink("up", f"--data-dir={directory}", f"--port={free_port()}")

    assert done.returncode == 1
    assert "no_programs" in done.stderr
    assert len(done.stderr.splitlines()) == 1


async def test_with_the_hub_no_machine_speaks_to_the_database() -> None:
    with open_directory() as directory, running_up(directory, "--vms=2", "--transport=hub") as up:
        address, key = ask(up, "echo over the hub")
        becomes(address, key, status="active", exit_code=0)
        owner = await asyncpg.connect(up.dsn())
        assert not await owner.fetchval("SELECT count(*) FROM pg_stat_activity WHERE usename ~ '^lablink_vm_'")
        await owner.close()


def test_a_second_start_finds_the_data_and_fewer_machines_are_retired() -> None:
    with open_directory() as directory:
        with running_up(directory, "--vms=3") as first:
            address, key = ask(first, "echo remembered")
            lease = becomes(address, key, status="active", exit_code=0)
        with running_up(directory, "--vms=1") as second:
            kept = second.json("leases", "show", lease["id"])
            machines = {vm["hostname"]: vm["status"] for vm in second.json("vms", "list", "--all")}

    assert kept["crd_command"] == "echo remembered"
    assert sorted(machines.values())[1:] == ["retired", "retired"]
    assert machines[lease["hostname"]] != "retired"


def test_machines_enrol_again_when_their_database_is_new_or_elsewhere() -> None:
    with open_directory() as directory:
        with running_up(directory, "--vms=1"):
            pass
        port = free_port()
        (directory / "postgres.port").write_text(str(port))
        with socket.create_server(("127.0.0.1", port)), running_up(directory, "--vms=1") as elsewhere:
            assert [vm["status"] for vm in elsewhere.json("vms", "list")] == ["available"]
        shutil.rmtree(directory / "postgres")
        with running_up(directory, "--vms=1") as new:
            assert [vm["status"] for vm in new.json("vms", "list")] == ["available"]

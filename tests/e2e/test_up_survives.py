"""What `lablink up` does when one of its processes dies, and what it leaves behind when it dies itself: nothing."""

import os
import shutil
import signal
from pathlib import Path

import asyncpg
import httpx
import pytest

from tests.e2e.test_up import ask, becomes
from tests.support.processes import alive
from tests.support.service import NO_TLS
from tests.support.up import START_SECONDS, RunningUp, free_port, open_directory, running_up, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]  # each starts all of LabLink, and most of them twice


def machines_are_well(up: RunningUp) -> bool:
    """Whether every machine is available and freshly heard."""
    done = up.lablink("vms", "list", "--json")
    return done.returncode == 0 and done.stdout.count('"available"') == 2


def the_main_job_works(up: RunningUp) -> bool:
    """Whether a request is served to its end."""
    address, key = ask(up, "echo works")
    becomes(address, key, status="active", exit_code=0)
    return httpx.delete(address, headers=key, timeout=60).is_success


def is_ready(up: RunningUp) -> bool:
    """Whether the page answers."""
    try:
        return httpx.get(f"{up.url}/readyz", timeout=5, verify=NO_TLS).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize(
    ("victim", "said"),
    [("lablink-client run", "vm-1"), ("lablink serve", "The allocator"), ("bin/postgres", "PostgreSQL")],
)
def test_a_killed_part_is_started_again_and_said_so(victim: str, said: str) -> None:
    with open_directory() as directory, running_up(directory, "--vms=1") as up:
        os.kill(up.child(victim), signal.SIGKILL)

        assert "was killed (SIGKILL)" in up.hears(f"{said} was killed")
        until(lambda: is_ready(up), "the page")
        assert the_main_job_works(up)


async def test_killed_connections_come_back(up: RunningUp) -> None:
    owner = await asyncpg.connect(up.dsn())
    await owner.execute(
        "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await owner.close()

    until(lambda: is_ready(up), "the page")
    assert the_main_job_works(up)


@pytest.mark.parametrize("statement", ["DELETE FROM vms WHERE hostname = 'vm-1'", "TRUNCATE vms"])
async def test_a_machine_whose_row_was_deleted_is_invited_again(statement: str) -> None:
    with open_directory() as directory, running_up(directory, "--vms=2") as up:
        owner = await asyncpg.connect(up.dsn())
        await owner.execute(statement)
        await owner.close()

        up.hears("vm-1 is not enrolled any more")
        until(lambda: machines_are_well(up), "both machines to be available")


async def test_a_machine_retired_by_an_admin_stays_retired() -> None:
    with open_directory() as directory, running_up(directory, "--vms=2") as up:
        owner = await asyncpg.connect(up.dsn())
        await owner.execute("SELECT retire_vm('vm-2')")
        await owner.close()

        up.hears("vm-2 was retired")

        assert [vm["hostname"] for vm in up.json("vms", "list")] == ["vm-1"]


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything(sign: signal.Signals) -> None:
    with open_directory() as directory, running_up(directory, "--vms=2") as up:
        address, key = ask(up, "sleep 1000")
        becomes(address, key, status="active")
        below = up.children()

        code = up.stop(sign)

        assert code == 0
        assert any("sleep 1000" in process.command for process in below)
        assert alive(below) == set()
        assert "Stopping" in up.output
        assert "Traceback" not in up.output


def test_a_second_signal_does_not_wait_for_what_is_frozen() -> None:
    with open_directory() as directory, running_up(directory, "--vms=1") as up:
        below = up.children()
        frozen = [process.pid for process in below if "allocator.local.child" in process.command]
        for pid in (*frozen, up.child("bin/postgres")):
            os.kill(pid, signal.SIGSTOP)
        up.process.send_signal(signal.SIGINT)
        up.hears("Stopping")

        assert up.stop() == 0
        assert alive(below) == set()


def test_nothing_outlives_a_killed_up_and_the_next_one_finds_its_data() -> None:
    with open_directory() as directory:
        with running_up(directory, "--vms=2") as up:
            address, key = ask(up, "sleep 1000")
            lease = becomes(address, key, status="active")
            below = up.children()
            up.stop(signal.SIGKILL)
            until(lambda: not alive(below), "its children to die")

        with running_up(directory, "--vms=2") as again:
            assert again.json("leases", "show", lease["id"])["crd_command"] == "sleep 1000"
            until(lambda: is_ready(again), "the page")
            assert the_main_job_works(again)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can close a directory to somebody and still use it")
def test_a_directory_closed_to_everybody_else_works_for_root(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)

    with running_up(closed / "data", "--vms=1") as up:
        home = (up.data_dir / "vms").resolve()
        assert the_main_job_works(up)

    assert closed not in home.parents
    shutil.rmtree(home)


@pytest.mark.skipif(os.geteuid() != 0, reason="everything runs as ourselves")
def test_postgresql_and_every_machine_are_users_of_their_own(up: RunningUp) -> None:
    clients = [process.uid for process in up.running("lablink-client run")]
    server = [process.uid for process in up.running("bin/postgres")]

    assert len(clients) == 3
    assert len({0, *server, *clients}) == 5


@pytest.mark.skipif(os.geteuid() != 0, reason="everything runs as ourselves")
@pytest.mark.parametrize("file", ["credential.json", "journal", "settings.json"])
def test_a_job_can_read_its_own_machines_files_and_no_others(up: RunningUp, file: str) -> None:
    paths = [str(up.data_dir.resolve() / "vms" / hostname / file) for hostname in ("vm-1", "vm-2", "vm-3")]
    address, key = ask(up, f"python3 -c \"print(*[__import__('os').access(path, 4) for path in {paths}])\"")
    lease = becomes(address, key, status="active", exit_code=0)

    said = up.json("leases", "show", lease["id"])["output"].split()

    assert httpx.delete(address, headers=key, timeout=60).is_success
    assert [hostname for hostname, may in zip(("vm-1", "vm-2", "vm-3"), said, strict=True) if may == "True"] == [
        lease["hostname"]
    ]


SPOILS = {
    "pipes": "os.remove('credential.json'); os.mkfifo('credential.json'); os.mkfifo('enrolment.json')",
    "directories": "os.makedirs('settings.json.new/x'); os.remove('settings.json'); os.makedirs('settings.json/x')",
    "links": "os.remove('credential.json'); os.symlink('/dev/zero', 'credential.json')",
    "depth": "[(os.mkdir('d'), os.chdir('d')) for _ in range(3000)]",
}


@pytest.mark.parametrize("spoil", SPOILS)
def test_what_a_job_leaves_in_its_machines_directory_does_not_stop_the_next_start(spoil: str) -> None:
    once = ("--vms=1", "--set", "pool.restart_on_move=false")  # or the job would spoil the next machine, too
    with open_directory() as directory:
        with running_up(directory, *once) as up:
            address, key = ask(up, f"python3 -c \"import os; os.chdir('..'); {SPOILS[spoil]}\"")
            becomes(address, key, status="active", exit_code=0)

        with running_up(directory, *once) as again:
            assert the_main_job_works(again)


@pytest.mark.parametrize(
    ("step", "sign"),
    [("PostgreSQL", signal.SIGINT), ("Database", signal.SIGKILL), ("Allocator", signal.SIGINT)],
)
def test_a_start_that_is_interrupted_leaves_nothing_running_and_the_next_one_is_good(
    step: str, sign: signal.Signals
) -> None:
    with open_directory() as directory:
        up = RunningUp.start(directory, free_port(), "--vms=1")
        up.hears(step, seconds=START_SECONDS)
        below = up.children()
        up.stop(sign)
        up.close()

        until(lambda: not alive(below), "its children to end")
        assert "Traceback" not in up.output
        with running_up(directory, "--vms=1") as again:
            assert the_main_job_works(again)

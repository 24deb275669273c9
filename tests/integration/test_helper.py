"""The helper does what the client may not, for nobody else, and nothing else."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client.command import DesktopCommand, JobCommand
from client.processes import find_remains
from client.runner import CannotStart, Finished
from client.session import WipeFailed
from tests.support import LIMIT_SECONDS
from tests.support.commands import DAEMON, URL, ended
from tests.support.database import Database
from tests.support.helper import UID, Helped, helped_machine
from tests.support.machine import AS_ROOT, Machine, Pool, reached, reached_by


@pytest.fixture
def machine() -> Iterator[Helped]:
    with helped_machine() as machine:
        yield machine


async def run(machine: Helped, command: JobCommand | DesktopCommand) -> Finished:
    started = await machine.executor.start(command, name="vm-1", limit_seconds=20)
    finished = await started.wait()
    await started.end()
    return finished


async def the_command(machine: Helped) -> int:
    """The process of the one command that runs; one that has just begun shows no environment for a moment."""
    found: list[int] = []

    def is_seen() -> bool:
        found[:] = find_remains(machine.session.belongings)
        return len(found) == 1

    await reached(is_seen)
    return found[0]


def python(program: str) -> JobCommand:
    return JobCommand(("python3", "-ISc", program))


async def test_a_command_runs_as_the_sessions_account(machine: Helped) -> None:
    await machine.executor.check()
    finished = await run(machine, python("import os; print(os.getuid(), os.getcwd()); raise SystemExit(3)"))

    assert finished == Finished(3, f"{UID} {machine.session.directory}\n")


async def test_a_desktop_gets_its_pin_and_its_secrets_stay_there(machine: Helped) -> None:
    machine.start_host('echo "$@"; cat; echo "Host started successfully."')
    finished = await run(machine, DesktopCommand("4/0secret", URL, "739182"))

    assert finished.exit_code == 0
    assert finished.output == (f"--code=*** --redirect-url={URL} --name=vm-1\n***\n***\nHost started successfully.\n")


async def test_a_desktop_that_takes_too_long_is_stopped(machine: Helped) -> None:
    machine.start_host("exec sleep 60")
    started = await machine.executor.start(DesktopCommand("4/0a", URL, "739182"), name="vm-1", limit_seconds=0.2)

    assert (await started.wait()).failure == "timed-out"
    await started.end()


async def test_a_program_that_is_not_there_is_said_to_be_missing(machine: Helped) -> None:
    with pytest.raises(CannotStart) as raised:
        await run(machine, JobCommand(("no-such-program",)))

    assert raised.value.finished.failure == "not-installed"


async def test_a_command_ends_with_its_lease(machine: Helped) -> None:
    started = await machine.executor.start(JobCommand(("sleep", "60")), name="vm-1", limit_seconds=20)
    await the_command(machine)
    await started.end()

    assert find_remains(machine.session.belongings) == []
    await started.end()


async def test_whether_anything_of_the_session_runs_is_told(machine: Helped) -> None:
    assert not await machine.executor.runs()
    started = await machine.executor.start(JobCommand(("sleep", "60")), name="vm-1", limit_seconds=20)
    await reached_by(machine.executor.runs)
    await started.end()


async def test_a_command_ends_when_the_client_is_gone(machine: Helped) -> None:
    started = await machine.executor.start(JobCommand(("sleep", "60")), name="vm-1", limit_seconds=20)
    started.errand.close()
    await reached(lambda: find_remains(machine.session.belongings) == [])


async def test_a_wipe_leaves_no_process_and_no_file(machine: Helped) -> None:
    started = await machine.executor.start(python(f"open('left', 'w'); {DAEMON}"), name="vm-1", limit_seconds=20)
    daemon = int((await started.wait()).output)
    assert (machine.session.directory / "left").exists()
    await machine.executor.wipe()

    assert ended(daemon)
    assert not machine.session.directory.exists()
    await started.end()


async def test_a_session_that_somebody_left_something_in_is_emptied_first(machine: Helped) -> None:
    await run(machine, python("open('left', 'w')"))
    assert (await run(machine, python("import os; print(os.listdir())"))).output == "['tmp']\n"


async def test_a_command_goes_with_a_helper_that_is_killed(machine: Helped) -> None:
    started = await machine.executor.start(JobCommand(("sleep", "60")), name="vm-1", limit_seconds=20)
    sleep = await the_command(machine)
    os.kill(int(Path(f"/proc/{sleep}/stat").read_text().rpartition(") ")[2].split()[1]), signal.SIGKILL)

    assert (await started.wait()).failure == "command-failed"
    await reached(lambda: find_remains(machine.session.belongings) == [])
    await started.end()


async def test_a_helper_that_is_not_there_takes_the_machine_out_of_use(tmp_path: Path) -> None:
    nobody = Helped(tmp_path).executor
    with pytest.raises(WipeFailed, match="does not answer"):
        await nobody.check()
    with pytest.raises(WipeFailed, match="does not answer"):
        await nobody.start(JobCommand(("echo",)), name="vm-1", limit_seconds=20)


def test_nobody_but_the_clients_account_is_answered() -> None:
    with helped_machine(answers=os.geteuid() + 1) as machine:
        assert asked(machine, b'{"do": "wipe"}\n') == b""
        machine.session.open()
        assert asked(machine, b'{"do": "wipe"}\n') == b""
        assert machine.session.directory.exists()


DESKTOP = {"redirect_url": URL}
START: dict[str, Any] = {
    "do": "start",
    "kind": "job",
    "command": {"argv": ["echo"]},
    "name": "vm-1",
    "limit_seconds": 9,
}


@pytest.mark.parametrize(
    "request_",
    [
        b"\n",
        b"[]\n",
        b"[" * 100_000 + b"\n",
        b'{"do": "x' + b"x" * 700_000 + b'"}\n',
        {"do": "sh -c id"},
        {"do": ["wipe"]},
        {**START, "command": None},
        {**START, "command": {"argv": ["/bin/sh", "-c", "id"]}},
        {**START, "command": {"argv": ["LD_PRELOAD=x", "sh"]}},
        {**START, "command": {"argv": ["echo", "\0"]}},
        {**START, "command": {"argv": "echo"}},
        {**START, "kind": "shell"},
        {**START, "name": "vm-1 --pin=1"},
        {**START, "name": None},
        {**START, "limit_seconds": 0},
        {**START, "limit_seconds": 1e9},
        {**START, "limit_seconds": float("nan")},
        b'{"do": "start", "limit_seconds": ' + b"9" * 5000 + b"}\n",
        {**START, "command": {"argv": ["..", "echo"]}},
        {**START, "command": {"argv": ["echo", "\ud800"]}},
        {**START, "limit_seconds": "9"},
        {**START, "kind": "desktop", "command": DESKTOP, "secrets": None},
        {**START, "kind": "desktop", "command": DESKTOP, "secrets": {"code": "4/0a --user-name=root"}},
        {**START, "kind": "desktop", "command": DESKTOP, "secrets": {"code": "4/0a", "pin": "12345\n"}},
        {**START, "kind": "desktop", "command": {"redirect_url": "https://elsewhere"}, "secrets": {"code": "4/0a"}},
    ],
    ids=lambda request: str(request)[:60],
)
def test_what_the_grammar_does_not_know_is_refused(machine: Helped, request_: bytes | dict[str, Any]) -> None:
    sent = request_ if isinstance(request_, bytes) else json.dumps(request_).encode() + b"\n"
    answer = json.loads(asked(machine, sent) or b'{"trouble": "it hung up"}')

    assert "trouble" in answer or answer["finished"]["failure"] == "refused"
    assert not machine.session.directory.exists()


def asked(machine: Helped, request: bytes) -> bytes:
    """What the helper answers until it hangs up."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(LIMIT_SECONDS)
        connection.connect(str(machine.socket))
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65_536), b""))
        except ConnectionError:
            return b""


@pytest.mark.postgresql
async def test_a_persons_job_runs_by_way_of_the_helper(database: Database, tmp_path: Path, machine: Helped) -> None:
    pool = await Pool.of(database)
    vm = Machine.of(await database.vm("vm-1"), tmp_path / "vm-1")
    vm.executor = machine.executor
    async with vm.serving():
        lease = await pool.request_job(["sh", "-c", "echo hello; id -u"])
        finished = await pool.finished(lease)
        await pool.end(lease)
        await pool.available(vm)

    assert (finished["exit_code"], finished["output"]) == (0, f"hello\n{UID}\n")
    assert not machine.session.directory.exists()


@pytest.mark.postgresql
async def test_a_machine_whose_helper_is_missing_takes_no_work(database: Database, tmp_path: Path) -> None:
    pool = await Pool.of(database)
    vm = Machine.of(await database.vm("vm-1"), tmp_path / "vm-1")
    vm.executor = Helped(tmp_path).executor
    async with vm.serving():
        await pool.until(
            "SELECT status = 'failed' AND reason LIKE 'unhealthy: The helper%' FROM vms WHERE id = $1", vm.vm.id
        )


def helper(machine: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The helper as its unit starts it, with nothing on standard input."""
    (machine / "client.json").write_text(json.dumps(AS_ROOT))
    command = [sys.executable, "-I", "-m", "client.helper", "--settings", str(machine / "client.json")]
    return subprocess.run(
        [*command, "--state-dir", str(machine), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_helper_that_is_told_of_no_account_says_so(tmp_path: Path) -> None:
    done = helper(tmp_path, "--client-user", "no-such-account")

    assert done.returncode == 1
    assert "no-such-account" in done.stderr


def test_a_helper_that_nobody_is_connected_to_ends(tmp_path: Path) -> None:
    done = helper(tmp_path, "--client-user", "root")

    assert done.returncode == 1
    assert "Traceback" not in done.stderr

"""Nothing that a command started stays: not when it is stopped, not when its client dies, not when it hides."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from client.command import DesktopCommand, JobCommand
from client.processes import find_remains
from client.runner import Finished, Programs, Running, start
from client.session import Account, Session
from tests.support.commands import DAEMON, PATH, STUBBORN, URL, alive, ended, fake_start_host, run


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[Session]:
    session = Session(tmp_path / "session")
    session.open()
    yield session
    await session.wipe()


async def test_an_output_that_nobody_closes_does_not_hold_the_result_up(session: Session) -> None:
    finished = await run(session, "python3", "-c", DAEMON)

    assert finished.exit_code == 0
    assert alive(int(finished.output))


async def test_what_a_desktop_left_running_lives_until_the_session_ends(session: Session, tmp_path: Path) -> None:
    (tmp_path / "daemon.py").write_text(DAEMON)
    programs = fake_start_host(tmp_path, f"exec {sys.executable} {tmp_path / 'daemon.py'}")
    running = await start(DesktopCommand("4/0a", URL, "739182"), session, programs, name="vm-1", limit_seconds=20)
    daemon = int((await running.wait()).output)

    assert alive(daemon)
    await running.stop()
    assert ended(daemon)


async def test_a_wipe_ends_what_daemonised(session: Session) -> None:
    daemon = int((await run(session, "python3", "-c", DAEMON)).output)
    await session.wipe()

    assert ended(daemon)
    assert not session.directory.exists()


async def test_a_job_that_ignores_the_polite_signal_is_killed(session: Session) -> None:
    os.mkfifo(session.directory / "ready")
    running = await start(JobCommand(("python3", "-c", STUBBORN)), session, Programs(path=PATH), name="vm-1")
    await asyncio.to_thread((session.directory / "ready").read_bytes)
    await running.stop()

    assert (await running.wait()).exit_code == 137
    await running.stop()


async def test_stopping_while_somebody_waits_ends_the_wait(session: Session) -> None:
    running = await start(JobCommand(("sleep", "600")), session, Programs(path=PATH), name="vm-1")
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(running.wait())
        await running.stop()

    assert waiting.result() == Finished(128 + signal.SIGTERM, "")


async def test_two_sessions_do_not_end_each_other(session: Session, tmp_path: Path) -> None:
    other = Session(tmp_path / "other")
    other.open()
    running = await start(JobCommand(("sleep", "600")), other, Programs(path=PATH), name="vm-2")
    await session.wipe()

    assert len(find_remains(other.belongings)) == 1
    await running.stop()
    assert find_remains(other.belongings) == []


CLIENT = """
import asyncio, os, pathlib, sys
from client.command import JobCommand
from client.processes import adopt_orphans
from client.runner import Programs, start
from client.session import Session

async def main(place, path, when, *argv):
    adopt_orphans()
    session = Session(pathlib.Path(place))
    session.open()
    os.mkfifo(session.directory / "ready")
    running = await start(JobCommand(argv), session, Programs(path=path), name="vm-1")
    print(running.pid, flush=True)
    if when == "when ready":
        (session.directory / "ready").read_bytes()
        await running.stop()
    finished = await running.wait()
    print(finished.exit_code, finished.output, flush=True)
    sys.stdin.readline()
    await session.wipe()
    print("children:", pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text())

asyncio.run(main(*sys.argv[1:]))
"""


ORPHANS = """
import os, time
parent = os.getppid()
for _ in range(50):
    if os.fork() == 0:
        os._exit(0 if os.fork() else 1)
    os.wait()
while len(open(f"/proc/{parent}/task/{parent}/children").read().split()) > 1:
    time.sleep(0.01)
"""


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "elsewhere")


async def client(place: str, when: str, *argv: str) -> asyncio.subprocess.Process:
    """The runner in a process of its own, as on a machine: one that adopts orphans."""
    program = (sys.executable, "-c", CLIENT, place, PATH, when, *argv)
    return await asyncio.create_subprocess_exec(*program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)


async def words(process: asyncio.subprocess.Process) -> list[int]:
    assert process.stdout
    async with asyncio.timeout(20):
        return [int(word) for word in (await process.stdout.readline()).split()]


async def test_a_command_dies_with_its_client(place: str) -> None:
    process = await client(place, "at its end", "sleep", "600")
    (command,) = await words(process)
    assert alive(command)
    process.kill()
    await process.wait()

    assert ended(command)


async def test_a_daemon_that_threw_its_mark_away_is_found_among_the_orphans(place: str) -> None:
    hiding = f"import os, sys; os.execve(sys.executable, ['python3', '-c', {DAEMON!r}], {{}})"
    process = await client(place, "at its end", "python3", "-c", hiding)
    await words(process)
    exit_code, daemon = await words(process)
    assert alive(daemon)
    rest, _ = await process.communicate(b"\n")

    assert exit_code == 0
    assert ended(daemon)
    assert rest.split() == [b"children:"]


async def test_adopting_orphans_takes_nobodys_exit_code(place: str) -> None:
    process = await client(place, "when ready", "python3", "-c", STUBBORN)
    rest, _ = await process.communicate(b"\n")

    assert rest.split()[1:] == [b"137", b"children:"]


async def test_adopted_orphans_do_not_pile_up(place: str) -> None:
    process = await client(place, "at its end", "python3", "-c", ORPHANS)
    rest, _ = await process.communicate(b"\n")

    assert rest.split()[1:] == [b"0", b"children:"]


@pytest.fixture
async def unprivileged() -> AsyncIterator[Session]:
    """A session of an account that nobody has; only root can become it."""
    if os.geteuid() != 0 or not shutil.which("python3", path=Programs().path):
        pytest.skip("needs root, and a python3 that every account can run")
    state = Path(tempfile.mkdtemp())
    state.chmod(0o711)
    session = Session(state / "session", Account("lablink-test", 61_347, 61_347, ()))
    session.open()
    yield session
    await session.wipe()
    state.rmdir()


async def test_a_command_runs_as_the_sessions_account(unprivileged: Session) -> None:
    show = "import os; print(os.getresuid(), os.getresgid(), os.getgroups(), os.environ['USER'])"
    running = await start(JobCommand(("python3", "-c", show)), unprivileged, Programs(), name="vm-1")
    ids = (61_347,) * 3

    assert (await running.wait()).output == f"{ids} {ids} [] lablink-test\n"


async def test_all_of_the_accounts_processes_and_files_go_with_the_session(unprivileged: Session) -> None:
    program = f"import os, tempfile; os.mkdir('d', 0); print(tempfile.mkdtemp(dir='/tmp'), flush=True); {DAEMON}"
    hiding = f"import os; os.execve('/usr/bin/env', ['env', '-i', 'python3', '-c', {program!r}], {{}})"
    running: Running = await start(JobCommand(("python3", "-c", hiding)), unprivileged, Programs(), name="vm-1")
    left, daemon = (await running.wait()).output.split()
    assert Path(left).exists()
    await unprivileged.wipe()

    assert ended(int(daemon))
    assert not Path(left).exists()
    assert not unprivileged.directory.exists()

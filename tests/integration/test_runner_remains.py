"""Nothing that a command started stays: not when it is stopped, not when its client dies, not when it hides."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from client.command import DesktopCommand, JobCommand
from client.processes import find_remains
from client.runner import Finished, Programs, start
from client.session import Session
from tests.support import LIMIT_SECONDS
from tests.support.commands import (
    CHAIN,
    DAEMON,
    PATH,
    STUBBORN,
    URL,
    alive,
    ended,
    fake_start_host,
    is_closed,
    opened_fifo,
    run,
)
from tests.support.machine import reached


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
    running = await start(
        DesktopCommand("4/0a", URL, "739182"), session, programs, name="vm-1", limit_seconds=LIMIT_SECONDS
    )
    daemon = int((await running.wait()).output)

    assert alive(daemon)
    await running.stop()
    assert ended(daemon)


async def test_a_wipe_ends_what_daemonised(session: Session) -> None:
    daemon = int((await run(session, "python3", "-c", DAEMON)).output)
    await session.wipe()

    assert ended(daemon)
    assert not session.directory.exists()


async def test_a_job_that_ignores_the_polite_signal_is_killed(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.runner._GRACE_SECONDS", 0.1)
    os.mkfifo(session.directory / "ready")
    running = await start(JobCommand(("python3", "-c", STUBBORN)), session, Programs(path=PATH), name="vm-1")
    await asyncio.to_thread((session.directory / "ready").read_bytes)
    await running.stop()

    assert (await running.wait()).exit_code == 137
    await running.stop()


async def test_stopping_while_somebody_waits_ends_the_wait(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.runner._GRACE_SECONDS", LIMIT_SECONDS)  # else what is slow to end is killed
    running = await start(JobCommand(("sleep", "600")), session, Programs(path=PATH), name="vm-1")
    async with asyncio.timeout(LIMIT_SECONDS), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(running.wait())
        await running.stop()

    assert waiting.result() == Finished(128 + signal.SIGTERM, "")


async def test_two_sessions_do_not_end_each_other(session: Session, tmp_path: Path) -> None:
    other = Session(tmp_path / "other")
    other.open()
    running = await start(JobCommand(("sleep", "600")), other, Programs(path=PATH), name="vm-2")
    await session.wipe()

    await reached(lambda: len(find_remains(other.belongings)) == 1)  # what has just begun shows nothing for a moment
    await running.stop()
    assert find_remains(other.belongings) == []


CLIENT = """
import asyncio, os, pathlib, sys
from client import runner
from client.command import JobCommand
from client.processes import adopt_orphans, limit_all_below
from client.runner import Programs, start
from client.session import Session

async def begins_late(*argv, begin=asyncio.create_subprocess_exec, **options):
    process = await begin(*argv, **options)
    (pathlib.Path(options["cwd"]) / "ready").read_bytes()
    return process

async def main(place, path, when, *argv):
    if when == "late":
        asyncio.create_subprocess_exec = begins_late
    runner._GRACE_SECONDS = 0.1
    adopt_orphans()
    limit_all_below()
    session = Session(pathlib.Path(place))
    session.open()
    os.mkfifo(session.directory / "ready")
    running = await start(JobCommand(argv), session, Programs(path=path), name="vm-1")
    print(pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text(), flush=True)
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
import os, sys, time
parent = os.getppid()
def siblings():
    return set(open(f"/proc/{parent}/task/{parent}/children").read().split()) - {str(os.getpid())}
def lives(pid):
    return open(f"/proc/{pid}/stat").read().rpartition(") ")[2][0] != "Z"
for _ in range(50):
    if os.fork() == 0:
        os._exit(0 if os.fork() else 1)
    os.wait()
for fifo in sys.argv[1:]:
    while any(map(lives, siblings())):
        time.sleep(0.01)
    open(fifo, "w").close()
while siblings():
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
    async with asyncio.timeout(LIMIT_SECONDS):
        return [int(word) for word in (await process.stdout.readline()).split()]


async def test_a_command_dies_with_its_client(place: str) -> None:
    process = await client(place, "at its end", "sleep", "600")
    (command,) = await words(process)
    await reached(lambda: Path(f"/proc/{command}/comm").read_text() == "sleep\n")
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


async def test_a_chain_of_processes_that_live_a_moment_each_is_cut(place: str, tmp_path: Path) -> None:
    reader = opened_fifo(tmp_path / "fifo")
    process = await client(place, "at its end", "python3", "-ISc", CHAIN.format(fifo=str(tmp_path / "fifo")))
    await words(process)
    await words(process)
    rest, _ = await process.communicate(b"\n")

    assert rest.split() == [b"children:"]
    assert is_closed(reader)


async def test_a_command_dumps_no_core_and_leaves_room_for_other_processes(place: str) -> None:
    show = "import resource as r; print(r.getrlimit(r.RLIMIT_CORE)[1], r.getrlimit(r.RLIMIT_NPROC)[1])"
    process = await client(place, "at its end", "python3", "-c", show)
    await words(process)
    _, core, processes = await words(process)
    await process.communicate(b"\n")

    assert core == 0
    assert processes <= int(Path("/proc/sys/kernel/pid_max").read_text()) / 2


async def test_adopted_orphans_do_not_pile_up(place: str) -> None:
    process = await client(place, "at its end", "python3", "-c", ORPHANS)
    rest, _ = await process.communicate(b"\n")

    assert rest.split()[-2:] == [b"0", b"children:"]


async def test_orphans_that_ended_before_anybody_looked_do_not_stay(place: str) -> None:
    process = await client(place, "late", "python3", "-c", ORPHANS, "ready")
    rest, _ = await process.communicate(b"\n")

    assert rest.split()[-2:] == [b"0", b"children:"]


NEGLECTED = '''
import os, subprocess, sys
from client.processes import adopt_orphans, children_of, reap_adopted
adopt_orphans()
leaves = """import os
for _ in range(3):
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
"""
own = subprocess.Popen([sys.executable, "-c", leaves])
os.waitid(os.P_PID, own.pid, os.WEXITED | os.WNOWAIT)
print(len(children_of(os.getpid())))
reap_adopted(own.pid)
print(len(children_of(os.getpid())), own.wait())
'''


def test_orphans_that_ended_with_who_had_them_do_not_stay() -> None:
    done = subprocess.run([sys.executable, "-c", NEGLECTED], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["4", "1", "0"]

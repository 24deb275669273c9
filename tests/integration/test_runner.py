"""Real processes through the runner: what they get, what comes back of them, and that nothing of them stays."""

import asyncio
import json
import os
import select
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from allocator.local import start_host
from client.command import DesktopCommand, JobCommand
from client.processes import find_remains
from client.runner import CannotStart, Finished, Programs, Running, start
from client.session import Account, Session

URL = "https://remotedesktop.google.com/_/oauthredirect"
PATH = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
DAEMON = """
import os, sys, time
reading, writing = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        sys.stdout.write(f"{os.getpid()}\\n")
        sys.stdout.flush()
        os.write(writing, b"x")
        time.sleep(600)
    os._exit(0)
os.read(reading, 1)
"""


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[Session]:
    session = Session(tmp_path / "session")
    session.open()
    yield session
    await session.wipe()


@pytest.fixture
def stand_in(tmp_path: Path) -> Programs:
    script = shutil.copy(start_host.__file__, tmp_path / "start_host.py")
    return fake_start_host(tmp_path, f'exec {sys.executable} -IS {script} "$@"')


def fake_start_host(directory: Path, body: str) -> Programs:
    path = directory / "start-host"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return Programs(start_host=str(path), path=PATH)


async def run(session: Session, *argv: str) -> Finished:
    running = await start(JobCommand(argv), session, Programs(path=PATH), name="vm-1")
    async with asyncio.timeout(20):
        return await running.wait()


async def run_desktop(session: Session, programs: Programs, command: DesktopCommand, limit: float = 20) -> Finished:
    running = await start(command, session, programs, name="vm-1", limit_seconds=limit)
    async with asyncio.timeout(30):
        return await running.wait()


def ended(pid: int) -> bool:
    """Whether the process ends within five seconds."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 5)[0])
    finally:
        os.close(descriptor)


def alive(pid: int) -> bool:
    os.kill(pid, 0)
    return True


async def test_a_job_gives_its_exit_code_and_output(session: Session) -> None:
    assert await run(session, "echo", "hello") == Finished(0, "hello\n")
    assert await run(session, "python3", "-c", "import sys; print('no', file=sys.stderr); sys.exit(3)") == Finished(
        3, "no\n"
    )


async def test_a_job_killed_by_a_signal_ends_as_in_a_shell(session: Session) -> None:
    assert (await run(session, "python3", "-c", "import os; os.kill(os.getpid(), 9)")).exit_code == 137


async def test_no_shell_reads_the_arguments(session: Session) -> None:
    arguments = ["$(touch x)", "`touch x`", "; touch x", "a  b", "*", "", "'\"\\", "\n", "ü"]
    show = "import json, sys; print(json.dumps(sys.argv[1:]))"

    assert json.loads((await run(session, "python3", "-c", show, *arguments)).output) == arguments
    assert [path.name for path in session.directory.iterdir()] == ["tmp"]


async def test_a_command_sees_only_the_fixed_environment(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_CLIENT", "x")
    show = "import json, os, tempfile; print(json.dumps([dict(os.environ), os.getcwd(), tempfile.gettempdir()]))"
    environment, directory, temporary = json.loads((await run(session, "python3", "-c", show)).output)
    place = str(session.directory)

    assert environment.keys() - {"LC_CTYPE"} == {
        *("PATH", "LANG", "DISPLAY", "TMPDIR", "HOME", "USER", "LOGNAME", "LABLINK_SESSION")
    }
    assert (directory, environment["HOME"], temporary) == (place, place, f"{place}/tmp")


async def test_a_job_has_nothing_to_read(session: Session) -> None:
    assert (await run(session, "python3", "-c", "import sys; print(repr(sys.stdin.read()))")).output == "''\n"


async def test_a_command_has_a_process_group_of_its_own(session: Session) -> None:
    shown = (await run(session, "python3", "-c", "import os; print(os.getpid(), os.getsid(0), os.getpgid(0))")).output

    assert len(set(shown.split())) == 1


async def test_a_program_that_is_not_there_is_said_to_be_missing(session: Session) -> None:
    with pytest.raises(CannotStart, match="no-such-program could not be started: No such file") as raised:
        await run(session, "no-such-program")

    assert raised.value.finished.failure == "not-installed"
    assert raised.value.finished.exit_code is None


async def test_a_missing_start_host_is_said_to_be_missing(session: Session, tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="start-host could not be started") as raised:
        await run_desktop(session, Programs(start_host=str(tmp_path / "start-host")), DesktopCommand("4/0a", URL))

    assert raised.value.finished.failure == "not-installed"


async def test_a_missing_session_is_no_missing_program(tmp_path: Path) -> None:
    with pytest.raises(CannotStart) as raised:
        await run(Session(tmp_path / "never-opened"), "echo")

    assert raised.value.finished.failure == "command-failed"


async def test_only_the_end_of_long_output_is_kept(session: Session) -> None:
    output = (await run(session, "python3", "-c", "print('x' * 300_000); print('the end')")).output

    assert output.startswith("[only the end of 300,009 bytes]\n")
    assert output.endswith("xxx\nthe end\n")
    assert len(output.encode()) == 65_536


async def test_output_holds_nothing_that_a_terminal_or_a_database_chokes_on(session: Session) -> None:
    printed = r"print('\x1b[31mred\x1b[0m\x00\x07 a\r\nb\rc\td'); import os; os.write(1, b'\xff')"

    assert (await run(session, "python3", "-u", "-c", printed)).output == "red a\nb\nc\td\n\ufffd"


async def test_a_desktop_starts_with_the_pin_that_was_given(session: Session, stand_in: Programs) -> None:
    finished = await run_desktop(session, stand_in, DesktopCommand("4/0a", URL, "739182"))

    assert finished.exit_code == 0
    assert finished.failure is None
    assert finished.output.endswith("Host started successfully.\n")
    assert "LabLink: " not in finished.output


async def test_a_desktop_without_a_pin_starts_and_says_what_to_do(session: Session, stand_in: Programs) -> None:
    finished = await run_desktop(session, stand_in, DesktopCommand("4/0a", URL))

    assert (finished.exit_code, finished.failure) == (0, None)
    assert "add --pin= and 6 or more digits" in finished.output
    assert "Host started successfully." in finished.output


async def test_the_pin_is_on_standard_input_and_not_among_the_arguments(session: Session, tmp_path: Path) -> None:
    programs = fake_start_host(tmp_path, 'printf "%s\\n" "$@" > arguments; cat > input')
    await run_desktop(session, programs, DesktopCommand("4/0abc", URL, "739182"))

    assert (session.directory / "input").read_text() == "739182\n739182\n"
    assert (session.directory / "arguments").read_text().split() == [
        *("--code=4/0abc", f"--redirect-url={URL}", "--name=vm-1")
    ]


@pytest.mark.parametrize(
    ("code", "failure"),
    [("4/expired-1", "code-used"), ("4/denied-1", "command-failed"), ("4/offline-1", "command-failed")],
)
async def test_a_desktop_that_fails_says_why(session: Session, stand_in: Programs, code: str, failure: str) -> None:
    finished = await run_desktop(session, stand_in, DesktopCommand(code, URL, "739182"))

    assert (finished.exit_code, finished.failure) == (1, failure)


async def test_a_code_works_once(session: Session, stand_in: Programs) -> None:
    await run_desktop(session, stand_in, DesktopCommand("4/0once", URL, "739182"))
    finished = await run_desktop(session, stand_in, DesktopCommand("4/0once", URL, "739182"))

    assert finished.failure == "code-used"


async def test_a_desktop_that_takes_too_long_is_stopped(session: Session, stand_in: Programs) -> None:
    finished = await run_desktop(session, stand_in, DesktopCommand("4/stuck", URL, "739182"), limit=0.2)

    assert finished.timed_out
    assert finished.failure == "timed-out"
    assert find_remains(session.belongings) == []


async def test_a_desktop_that_prompts_for_ever_is_stopped_by_its_output(session: Session, tmp_path: Path) -> None:
    programs = fake_start_host(tmp_path, "exec yes Enter a PIN of at least six digits:")
    finished = await run_desktop(session, programs, DesktopCommand("4/0a", URL, "739182"), limit=60)

    assert (finished.exit_code, finished.failure, finished.timed_out) == (137, "command-failed", False)
    assert len(finished.output.encode()) <= 65_536


async def test_code_and_pin_are_not_in_the_output(session: Session, tmp_path: Path) -> None:
    programs = fake_start_host(tmp_path, 'echo "$@"; cat; echo "4%2F0secret"')
    output = (await run_desktop(session, programs, DesktopCommand("4/0secret", URL, "739182"))).output

    assert output == f"--code=*** --redirect-url={URL} --name=vm-1\n***\n***\n***\n"


async def test_a_code_that_the_cut_would_halve_is_not_in_the_output(session: Session, tmp_path: Path) -> None:
    code = "4/0" + "secret-" * 40
    programs = fake_start_host(tmp_path, f"exec {sys.executable} -c \"print('{code} ' * 240, end=str())\"")
    output = (await run_desktop(session, programs, DesktopCommand(code, URL, "739182"))).output

    assert output.startswith("[only the end of ")
    assert "secret" not in output


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
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); open('ready', 'w').close(); time.sleep(600)"
    os.mkfifo(session.directory / "ready")
    running = await start(JobCommand(("python3", "-c", stubborn)), session, Programs(path=PATH), name="vm-1")
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
import asyncio, pathlib, sys
from client.command import JobCommand
from client.processes import adopt_orphans
from client.runner import Programs, start
from client.session import Session

async def main(place, path, *argv):
    adopt_orphans()
    session = Session(pathlib.Path(place))
    session.open()
    running = await start(JobCommand(argv), session, Programs(path=path), name="vm-1")
    if argv[0] == "sleep":
        print(running.pid, flush=True)
        await running.wait()
    print((await running.wait()).output, flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await session.wipe()
    print("wiped", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "elsewhere")


async def client(place: str, *argv: str) -> asyncio.subprocess.Process:
    """The runner in a process of its own, as on a machine: one that adopts orphans."""
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLIENT, place, PATH, *argv, stdin=pipe, stdout=pipe
    )


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout
    async with asyncio.timeout(20):
        return (await process.stdout.readline()).decode().strip()


async def test_a_command_dies_with_its_client(place: str) -> None:
    process = await client(place, "sleep", "600")
    command = int(await line(process))
    assert alive(command)
    process.kill()
    await process.wait()

    assert ended(command)


async def test_a_daemon_that_threw_its_mark_away_is_found_among_the_orphans(place: str) -> None:
    hiding = f"import os, sys; os.execve(sys.executable, ['python3', '-c', {DAEMON!r}], {{}})"
    process = await client(place, "python3", "-c", hiding)
    daemon = int(await line(process))
    assert alive(daemon)
    await process.communicate(b"\n")

    assert process.returncode == 0
    assert ended(daemon)


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

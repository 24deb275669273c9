"""Real processes through the runner: what they get, and what comes back of them."""

import json
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from allocator.local import start_host
from client.command import DesktopCommand
from client.processes import find_remains
from client.runner import CannotStart, Finished, Programs
from client.session import Session
from tests.support.commands import URL, fake_start_host, run, run_desktop


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

    assert finished.failure == "timed-out"
    assert find_remains(session.belongings) == []


async def test_a_desktop_that_prompts_for_ever_is_stopped_by_its_output(session: Session, tmp_path: Path) -> None:
    programs = fake_start_host(tmp_path, "exec yes Enter a PIN of at least six digits:")
    finished = await run_desktop(session, programs, DesktopCommand("4/0a", URL, "739182"), limit=60)

    assert (finished.exit_code, finished.failure) == (137, "command-failed")
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

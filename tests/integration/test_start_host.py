"""The stand-in for start-host says and does what Google's does, as far as anybody can tell from outside."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from allocator.local import start_host

URL = "https://remotedesktop.google.com/_/oauthredirect"
GOOD = ("--code=4/0Good", f"--redirect-url={URL}", "--name=vm-1")


def run(home: Path, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    environment = {"HOME": str(home), "LABLINK_STAND_IN_CODES": str(home / "codes")}
    program = [sys.executable, "-IS", start_host.__file__, *arguments]
    return subprocess.run(
        program, input=typed, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_it_says_what_it_is(tmp_path: Path) -> None:
    assert "stand-in" in run(tmp_path, *GOOD, "--pin=123456").stdout
    assert "stand-in" in run(tmp_path).stderr


def test_a_pin_typed_twice_starts_the_host(tmp_path: Path) -> None:
    ended = run(tmp_path, *GOOD, typed="123456\n123456\n")

    assert ended.returncode == 0
    assert ended.stdout.endswith(
        "Enter a PIN of at least six digits: \nEnter the same PIN again: \nHost started successfully.\n"
    )
    assert ended.stderr == ""


def test_a_bad_pin_and_a_different_one_are_asked_for_again(tmp_path: Path) -> None:
    ended = run(tmp_path, *GOOD, typed="12345\n123456\n654321\n123456\n123456\n")

    assert ended.returncode == 0
    assert "Please provide a numeric PIN consisting of at least six digits." in ended.stdout
    assert "You entered different PINs." in ended.stdout


def test_without_a_pin_it_asks_for_ever_at_end_of_file(tmp_path: Path) -> None:
    program = [sys.executable, "-IS", start_host.__file__, *GOOD]
    with subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as endless:
        assert endless.stdout
        lines = [endless.stdout.readline() for _ in range(1000)]
        endless.kill()

    assert lines.count(b"Please provide a numeric PIN consisting of at least six digits.\n") > 100


def test_a_name_is_asked_for_when_there_is_none(tmp_path: Path) -> None:
    ended = run(tmp_path, *GOOD[:2], "--pin=123456", typed='my "lab"\n')
    written = json.loads((tmp_path / ".config/chrome-remote-desktop/host#stand-in.json").read_text())

    assert "Enter a name for this computer: " in ended.stdout
    assert written["host_name"] == 'my "lab"'


def test_the_new_switch_for_the_name_wins(tmp_path: Path) -> None:
    run(tmp_path, *GOOD, "--display-name=new", "--pin=123456")

    assert '"new"' in (tmp_path / ".config/chrome-remote-desktop/host#stand-in.json").read_text()


def test_neither_code_nor_pin_is_written_anywhere(tmp_path: Path) -> None:
    run(tmp_path, *GOOD, "--pin=739182")
    written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())

    assert "4/0Good" not in written
    assert "739182" not in written


def test_a_code_works_once(tmp_path: Path) -> None:
    first = run(tmp_path, *GOOD, "--pin=123456")
    second = run(tmp_path, *GOOD, "--pin=123456")

    assert (first.returncode, second.returncode) == (0, 1)
    assert "Couldn't start host: OAuth error." in second.stderr


def test_of_many_at_once_one_may_use_the_code(tmp_path: Path) -> None:
    program = [sys.executable, "-IS", start_host.__file__, *GOOD, "--pin=123456"]
    environment = {"HOME": str(tmp_path), "LABLINK_STAND_IN_CODES": str(tmp_path / "codes")}
    quiet = subprocess.DEVNULL
    started = [subprocess.Popen(program, env=environment, stdout=quiet, stderr=quiet) for _ in range(8)]

    assert sorted(process.wait(60) for process in started) == [0] + [1] * 7


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("4/expired-1", "Couldn't start host: OAuth error."),
        ("4/offline-1", "Couldn't start host: network error."),
        ("4/denied-1", "Couldn't start host: Permission denied."),
        ("4/broken-1", "Couldn't start host: Registration error."),
    ],
)
def test_some_codes_fail_as_googles_service_does(tmp_path: Path, code: str, message: str) -> None:
    ended = run(tmp_path, f"--code={code}", *GOOD[1:], "--pin=123456")

    assert ended.returncode == 1
    assert message in ended.stderr
    assert "successfully" not in ended.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--help",),
        GOOD[:1],
        GOOD[1:],
        (*GOOD, "word"),
        ("--code", "4/0Good", *GOOD[1:]),
        (*GOOD, "--pin=12345"),
        (*GOOD, "--pin=١٢٣٤٥٦"),
    ],
)
def test_wrong_arguments_print_the_usage(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ended = run(tmp_path, *arguments)

    assert ended.returncode == 1
    assert "Example usage:" in ended.stderr

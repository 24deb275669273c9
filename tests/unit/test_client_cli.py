"""`lablink-client` says in one sentence what is wrong, and in its exit code who can help."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from client.cli import main
from tests.support.machine import AS_ROOT

HEAVY = ("http", "email", "urllib.request", "multiprocessing", "sqlite3", "unittest", "xml", "tempfile")


def reason(line: str) -> str:
    text: str = json.loads(line)["reason"]
    return text


def run(*arguments: str) -> tuple[int, str]:
    """The command in a process of its own: its exit code and what it said on stderr."""
    command = [sys.executable, "-m", "client.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


def test_a_machine_that_is_nobody_says_so_with_exit_code_77(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(json.dumps(AS_ROOT))
    code, said = run("run", "--state-dir", str(tmp_path))
    assert code == 77
    assert "lablink vms invite" in reason(said.splitlines()[-1])


@pytest.mark.skipif(os.geteuid() != 0, reason="anybody else's commands never run as root")
def test_a_client_that_root_starts_asks_whom_commands_run_as(tmp_path: Path) -> None:
    code, said = run("run", "--state-dir", str(tmp_path))
    assert code == 1
    assert "would run as root" in reason(said)
    assert "session_user" in reason(said)


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"start_hots": "x"}')
    code, said = run("run", "--state-dir", str(tmp_path))
    assert code == 1
    assert "start_hots" in reason(said)


def test_a_state_directory_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, said = run("run", "--state-dir", str(tmp_path / "file" / "below"))
    assert code == 1
    assert str(tmp_path / "file" / "below") in reason(said)


def test_a_machine_that_is_enrolled_is_not_enrolled_again_by_mistake(tmp_path: Path) -> None:
    (tmp_path / "credential.json").write_text("{}")
    code, said = run("enrol", "--state-dir", str(tmp_path), "--url", "https://a", "--token", "t")
    assert code == 1
    assert "enrolled already" in reason(said)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--token", "t"], "--url"),
        (["--url", "https://a"], "--token-file"),
        (["--url", "https://a", "--token-file", "/nowhere"], "/nowhere"),
    ],
)
def test_what_is_missing_to_enrol_is_named(tmp_path: Path, arguments: list[str], words: str) -> None:
    code, said = run("enrol", "--state-dir", str(tmp_path), *arguments)
    assert code == 1
    assert words in reason(said)


def test_a_transport_that_only_a_later_client_knows_is_named(tmp_path: Path) -> None:
    place = {"host": "localhost", "port": 1, "database": "d", "user": "u", "tls": "loopback", "password": "p"}
    credential = {"vm_id": 1, "hostname": "vm-1", "transport": "pigeon", "database": place}
    (tmp_path / "credential.json").write_text(json.dumps(credential))
    (tmp_path / "settings.json").write_text(json.dumps(AS_ROOT))
    code, said = run("run", "--state-dir", str(tmp_path))
    assert code == 1
    assert "'pigeon'" in reason(said.splitlines()[-1])


def test_help_explains_every_option_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "77" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["enrol", "--help"])
    assert "--token-file" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["install", "--help"])
    told = capsys.readouterr().out
    assert "systemd" in told and "Example: lablink-client install" in told


def test_a_running_client_has_loaded_nothing_heavy() -> None:
    code = "import sys, client.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in loaded if name in HEAVY]

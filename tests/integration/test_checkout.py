"""A bare checkout: what `make` says when Python is too old or incomplete, and that it knows its own commands."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that `make` needs to build `.venv`, and a PATH with no Python on it."""
    for name in ("Makefile", "pyproject.toml", ".ci/venv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    for program in ("make", "sh", "bash", "dirname", "cat", "rm", "awk"):
        found = shutil.which(program)
        assert found, program
        (tmp_path / "bin" / program).symlink_to(found)
    return tmp_path


def interpreter(checkout: Path, script: str) -> None:
    python = checkout / "bin" / "python3"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)


def make(checkout: Path, target: str) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": str(checkout / "bin"), "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(["make", target], cwd=checkout, env=environment, capture_output=True, text=True, timeout=60)


def test_an_old_python_is_one_sentence(checkout: Path) -> None:
    interpreter(checkout, '[ "$1" = --version ] && echo "Python 3.9.2" && exit 0; exit 1')
    done = make(checkout, "up")
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed, and there is Python 3.9.2." in done.stderr


def test_no_python_is_one_sentence(checkout: Path) -> None:
    assert "Python 3.11 or newer is needed, and there is none." in make(checkout, "up").stderr


def test_a_python_without_venv_is_one_sentence(checkout: Path) -> None:
    interpreter(checkout, 'case "$2" in *ensurepip*) exit 1;; esac')
    assert "apt install python3-venv" in make(checkout, "test").stderr
    assert not (checkout / ".venv").exists()


def test_help_lists_every_command(checkout: Path) -> None:
    shown = make(checkout, "help").stdout
    for command in ("up", "test", "check", "bench", "clean", "help"):
        assert f"make {command} " in shown

"""What a machine looks at to find out whether it is well."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.checks import Checks
from client.session import WipeFailed
from tests.support.helper import Helped, helped_machine

STARVED = """
import resource, sys
from pathlib import Path
from client.checks import Checks
here = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (5, 5))
print(Checks(here, here / "checks.d", 0).trouble(lent=True))
"""
"""A client that can list its checks, and start none."""


def program(directory: Path, name: str, does: str) -> Path:
    """A check, or something in a check's place."""
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\n{does}\n")
    path.chmod(0o755)
    return path


def checks(tmp_path: Path, *, limit_seconds: float = 20.0) -> Checks:
    """Those of a machine whose programs are in `bin`, and its admin's checks in `checks.d`."""
    path = f"{tmp_path}/bin:/usr/bin:/bin"
    return Checks(tmp_path, tmp_path / "checks.d", 0, limit_seconds, path)


@pytest.fixture
def helped() -> Iterator[Helped]:
    with helped_machine() as machine:
        yield machine


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of which less than a twentieth is free."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a small file system")
    (place / "film").write_bytes(bytes(1_000_000))
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_machine_without_checks_is_well(tmp_path: Path) -> None:
    assert checks(tmp_path).trouble(lent=False) is None


def test_a_full_disk_matters_while_nobody_has_the_machine(full_disk: Path) -> None:
    found = Checks(full_disk, full_disk / "checks.d", 256)
    assert found.trouble(lent=False) == "check disk: only 0 MB are free"
    assert found.trouble(lent=True) is None


def test_a_gpu_that_does_not_answer_well_is_trouble(tmp_path: Path) -> None:
    program(tmp_path / "bin", "nvidia-smi", "echo A100")
    assert checks(tmp_path).trouble(lent=True) is None
    program(tmp_path / "bin", "nvidia-smi", "echo Unable to determine the device handle; exit 15")
    assert checks(tmp_path).trouble(lent=True) == "check gpu: Unable to determine the device handle"


def test_the_last_line_of_an_own_check_is_the_reason(tmp_path: Path) -> None:
    program(tmp_path / "checks.d", "10-fine", "exit 0")
    program(tmp_path / "checks.d", "20-mount", "echo looking; echo /data is gone >&2; echo; exit 1")
    (tmp_path / "checks.d" / "README").write_text("exit 1")
    assert checks(tmp_path).trouble(lent=True) == "check 20-mount: /data is gone"


def test_a_check_that_says_nothing_is_told_by_its_exit_code(tmp_path: Path) -> None:
    program(tmp_path / "checks.d", "quiet", "exit 3")
    assert checks(tmp_path).trouble(lent=True) == "check quiet: exit code 3"


def test_a_check_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    program(tmp_path / "checks.d", "slow", "sleep 60 & sleep 60")
    assert checks(tmp_path, limit_seconds=0.3).trouble(lent=True) == "check slow: it took longer than 0.3 s"


def test_what_others_can_change_is_not_run(tmp_path: Path) -> None:
    path = program(tmp_path / "checks.d", "open", f"touch {tmp_path}/ran")
    path.chmod(0o777)
    found = checks(tmp_path).trouble(lent=True)
    assert found == "check open: others than root can change it, so it is not run"
    assert not (tmp_path / "ran").exists()


def test_what_others_can_put_there_is_not_run(tmp_path: Path) -> None:
    program(tmp_path / "checks.d", "fine", f"touch {tmp_path}/ran").parent.chmod(0o777)
    found = checks(tmp_path).trouble(lent=True)
    assert found == f"check fine: others than root can change it, so it is not run: see {tmp_path}/checks.d"
    assert not (tmp_path / "ran").exists()


def test_a_check_that_cannot_be_started_is_trouble(tmp_path: Path) -> None:
    program(tmp_path / "checks.d", "mount", "exit 0")
    done = subprocess.run([sys.executable, "-c", STARVED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout == "check mount: Too many open files\n"


def test_a_disk_that_does_not_answer_is_trouble(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    assert Checks(gone, gone / "checks.d", 0).trouble(lent=False) == "check disk: No such file or directory"


def test_a_directory_among_the_checks_is_none(tmp_path: Path) -> None:
    (tmp_path / "checks.d" / "old").mkdir(parents=True)
    assert checks(tmp_path).trouble(lent=True) is None


async def test_the_helper_looks_for_the_client_which_may_not(helped: Helped) -> None:
    await helped.executor.check()
    program(helped.root / "checks.d", "gpu", "echo it has fallen off the bus; exit 1")
    with pytest.raises(WipeFailed, match="check gpu: it has fallen off the bus"):
        await helped.executor.check(lent=True)

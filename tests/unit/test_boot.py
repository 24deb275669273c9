"""A boot's phases are told with the seconds that each took."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from client.boot import boot_of, uptime

ID = uuid4()


@pytest.fixture
def boot_id(tmp_path: Path) -> Path:
    file = tmp_path / "boot_id"
    file.write_text(f"{ID}\n")
    return file


@pytest.fixture
def phases(tmp_path: Path) -> Path:
    file = tmp_path / "phases"
    file.write_text("cloud-init 0\nstartup-script 12.5\nclient 40\n")
    return file


def test_each_phase_lasts_until_the_next_and_the_last_until_the_first_hello(phases: Path, boot_id: Path) -> None:
    boot = boot_of(60.0, phases, None, 62.25, boot_id)

    assert boot is not None
    assert boot.id == ID
    assert boot.phases == (("cloud-init", 12.5), ("startup-script", 27.5), ("client", 20.0), ("ready-check", 2.2))


def test_an_instance_was_started_before_its_kernel(phases: Path, boot_id: Path) -> None:
    started = datetime.fromtimestamp(time.time() - uptime() - 600, UTC)
    boot = boot_of(60.0, phases, started, 62.25, boot_id)

    assert boot is not None
    name, seconds = boot.phases[0]
    assert name == "instance"
    assert 570 < seconds < 630


def test_a_reboot_is_not_counted_from_the_instances_start(phases: Path, boot_id: Path) -> None:
    started = datetime.fromtimestamp(time.time() - uptime() - 90_000, UTC)
    boot = boot_of(60.0, phases, started, 62.25, boot_id)

    assert boot is not None
    assert "instance" not in dict(boot.phases)


def test_a_later_boot_does_not_repeat_what_the_first_one_wrote(phases: Path, boot_id: Path) -> None:
    earlier = time.time() - uptime() - 1000
    os.utime(phases, (earlier, earlier))
    boot = boot_of(60.0, phases, None, 62.25, boot_id)

    assert boot is not None
    assert boot.phases == (("system", 60.0), ("ready-check", 2.2))


def test_a_client_that_somebody_started_is_no_boot(phases: Path, boot_id: Path) -> None:
    assert boot_of(90_000.0, phases, None, 90_001.0, boot_id) is None


def test_a_computer_that_counts_no_boots_has_none(phases: Path, tmp_path: Path) -> None:
    assert boot_of(60.0, phases, None, 62.0, tmp_path / "not-there") is None


@pytest.mark.parametrize("written", ["", "nonsense\n", "failed 12\n", "client later\n"])
def test_what_was_written_by_half_is_left_out(phases: Path, boot_id: Path, written: str) -> None:
    phases.write_text(written)
    boot = boot_of(60.0, phases, None, 61.0, boot_id)

    assert boot is not None
    assert [name for name, _ in boot.phases] == ["system", "ready-check"]

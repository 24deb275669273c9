"""What `lablink up` decides before it does anything."""

import os
from pathlib import Path

import pytest

from allocator.local.data_directory import NAME, nearest
from allocator.local.machines import choose
from allocator.local.supervisor import LONGEST_PAUSE, STEADY_SECONDS, BackOff, how_it_ended


@pytest.mark.parametrize(
    ("present", "wanted", "keep", "surplus"),
    [
        ([], 3, ["vm-1", "vm-2", "vm-3"], []),
        ([("vm-1", False), ("vm-3", False)], 3, ["vm-1", "vm-2", "vm-3"], []),
        ([("vm-1", False), ("vm-2", False), ("vm-3", False)], 1, ["vm-1"], ["vm-2", "vm-3"]),
        ([("vm-1", False), ("vm-2", True), ("vm-3", False)], 1, ["vm-2"], ["vm-1", "vm-3"]),
        ([("vm-1", True), ("vm-2", True), ("vm-3", False)], 1, ["vm-1", "vm-2"], ["vm-3"]),
        ([("vm-1", False), ("vm-2", True)], 0, ["vm-2"], ["vm-1"]),
        ([("vm-10", False), ("vm-9", False)], 3, ["vm-1", "vm-9", "vm-10"], []),
        ([("i-0abc", False)], 1, ["vm-1"], []),
        ([("vm-1", False)], 0, [], ["vm-1"]),
    ],
)
def test_whoever_has_a_machine_keeps_it_and_free_numbers_are_filled(
    present: list[tuple[str, bool]], wanted: int, keep: list[str], surplus: list[str]
) -> None:
    assert choose(present, wanted) == (keep, surplus)


def test_machines_of_a_fleet_are_left_alone() -> None:
    present = [("vm-1", False), ("vm-2", True), ("vm-4", False)]

    assert choose(present, 0, {"vm-1", "vm-2"}) == ([], ["vm-4"])
    assert choose(present, 2, {"vm-1", "vm-2", "vm-3"}) == (["vm-4", "vm-5"], [])


def test_a_child_that_dies_early_is_waited_for_longer_each_time_up_to_a_limit() -> None:
    back_off = BackOff()

    pauses = [back_off.after(0.1) for _ in range(10)]

    assert pauses == sorted(pauses)
    assert pauses[0] < 0.5
    assert pauses[-1] == LONGEST_PAUSE
    assert back_off.after(STEADY_SECONDS) == pauses[0]


def test_an_end_is_told_in_words() -> None:
    assert how_it_ended(-9) == "was killed (SIGKILL)"
    assert how_it_ended(-40) == "was killed (signal 40)"
    assert how_it_ended(3) == "ended with exit code 3"


def test_the_data_directory_is_found_from_below(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    (tmp_path / "docs" / "images").mkdir(parents=True)

    assert nearest(tmp_path / "docs" / "images") == tmp_path / NAME
    assert nearest(tmp_path) == tmp_path / NAME


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another account")
@pytest.mark.parametrize("whose", ["directory", "link", "open to all"])
def test_a_data_directory_that_somebody_else_put_in_the_way_is_not_taken(tmp_path: Path, whose: str) -> None:
    somebody = 54_321
    theirs = tmp_path / "shared" / NAME
    (tmp_path / NAME).mkdir()
    (theirs.parent / "work").mkdir(parents=True)
    if whose == "link":
        theirs.symlink_to(tmp_path)
    else:
        theirs.mkdir()
    if whose == "open to all":
        theirs.chmod(0o777)
    else:
        os.chown(theirs, somebody, somebody, follow_symlinks=False)

    assert nearest(theirs.parent / "work") == tmp_path / NAME

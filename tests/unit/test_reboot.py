"""A desktop that was ready before its machine rebooted is given time to come back."""

from dataclasses import dataclass, replace
from uuid import uuid4

import pytest

from client.reboot import PATIENCE_SECONDS, Desktops
from client.records import Entry, Key

READY = Entry(Key(uuid4(), 1), "done", 0, "Host started successfully.", kind="desktop", boot="first")
GONE = replace(READY, state="unknown", failure="unknown")


@dataclass
class Machine:
    """Its session runs something, or does not."""

    running: bool = False

    async def runs(self) -> bool:
        return self.running


def desktops(machine: Machine, boot: str | None = "second", since_boot: float = 10.0) -> Desktops:
    return Desktops(machine.runs, boot, lambda: since_boot)


async def test_it_is_waited_for_until_it_is_there() -> None:
    machine = Machine()
    seen = desktops(machine)
    assert await seen.after_reboot(READY) is None
    machine.running = True
    assert await seen.after_reboot(READY) == READY


async def test_once_seen_it_is_its_holders_to_end() -> None:
    machine = Machine(running=True)
    seen = desktops(machine, since_boot=PATIENCE_SECONDS + 1)
    await seen.after_reboot(READY)
    machine.running = False
    assert await seen.after_reboot(READY) == READY


async def test_one_that_does_not_come_back_in_time_is_gone() -> None:
    assert await desktops(Machine(), since_boot=PATIENCE_SECONDS + 1).after_reboot(READY) == GONE


@pytest.mark.parametrize(
    ("entry", "boot"),
    [
        (READY, "first"),
        (READY, None),
        (replace(READY, boot=None), "second"),
        (replace(READY, kind="job"), "second"),
        (GONE, "second"),
    ],
)
async def test_nothing_is_asked_where_nothing_rebooted_under_a_desktop(entry: Entry, boot: str | None) -> None:
    assert await desktops(Machine(), boot, since_boot=PATIENCE_SECONDS + 1).after_reboot(entry) == entry

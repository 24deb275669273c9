"""What a machine looks at goes on beside its leases, and neither spoils what the other finds."""

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from client.checks import Checks
from client.executor import OwnExecutor
from client.health import WELL_ROUNDS, Health
from client.protocol import Orders
from client.runner import Programs
from client.session import Session
from client.transport import Unreachable
from tests.support import LIMIT_SECONDS
from tests.support.database import Database
from tests.support.machine import Machine, Pool, reached

HEARD = "SELECT seen_at > $1 FROM vm_heartbeats"


@dataclass(frozen=True, slots=True)
class Check:
    """A check that takes from when it is waited for until it is let go on."""

    directory: Path

    def install(self, what: str = ": > begins; : < goes-on") -> "Check":
        """Put it into its place."""
        self.directory.mkdir()
        os.mkfifo(self.directory / "begins")
        os.mkfifo(self.directory / "goes-on")
        self.does(what)
        return self

    def does(self, what: str) -> None:
        """Whatever begins from now on does that."""
        new = self.directory.with_name("new")
        new.write_text(f'#!/bin/sh\ncd "$(dirname "$0")"\n{what}\n')
        new.chmod(0o755)
        new.rename(self.directory / "check")

    async def begins(self) -> None:
        """Wait until it has begun."""
        async with asyncio.timeout(LIMIT_SECONDS):
            await asyncio.to_thread((self.directory / "begins").read_bytes)

    async def goes_on(self) -> None:
        """Let it end."""
        async with asyncio.timeout(LIMIT_SECONDS):
            await asyncio.to_thread((self.directory / "goes-on").write_bytes, b"")


def orders(status: str) -> Orders:
    """What a machine in a hurry hears."""
    return Orders(1, "vm-1", status, 8, None, None, None, 0.01)


def executor(place: Path, checks: Path) -> OwnExecutor:
    return OwnExecutor(Session(place / "session"), Programs(), Checks(place, checks, 0))


async def test_a_look_that_ends_late_does_not_hide_what_was_found_after_the_wipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.health._PATIENCE_SECONDS", 0)
    check, woken = Check(tmp_path / "checks.d").install(), asyncio.Event()
    health = Health(executor(tmp_path / "gone", check.directory), woken.set)
    health.note(orders("in-use"))
    late = asyncio.create_task(health.look())  # the disk is the holder's, so it is not looked at
    await check.begins()

    health.note(orders("cleaning"))
    assert not await health.clears(8)
    async with asyncio.timeout(LIMIT_SECONDS):
        await woken.wait()
    await check.goes_on()
    await late

    assert not await health.clears(8)
    assert health.trouble == "check disk: No such file or directory"


async def test_a_machine_that_is_not_clean_is_well_only_after_some_rounds(tmp_path: Path) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    health = Health(executor(place, tmp_path / "none"), lambda: None)
    health.note(orders("cleaning"))
    for _ in range(WELL_ROUNDS):
        await health.look()
    place.rmdir()
    assert not await health.clears(8)
    place.mkdir()
    await health.look()
    assert not health.take_well()


async def test_what_was_said_in_vain_is_said_again_in_the_next_round(tmp_path: Path) -> None:
    health = Health(executor(tmp_path / "gone", tmp_path / "none"), lambda: None)
    lent, answers = orders("in-use"), ["in-use", "in-use", "failed"]
    said: list[tuple[int, str]] = []
    health.note(lent)

    async def say(epoch: int, reason: str) -> str:
        said.append((epoch, reason))
        return answers[len(said) - 1]

    assert [await health.tell(say, lent, "check gpu: gone") for _ in range(3)] == [True] * 3
    await health.look()
    assert [await health.tell(say, lent, "check gpu: gone") for _ in range(2)] == [True] * 2
    await health.look()
    assert not await health.tell(say, lent, "check gpu: gone")
    assert said == [(8, "check gpu: gone")] * 3


async def test_what_was_not_answered_is_said_again_at_once(tmp_path: Path) -> None:
    health = Health(executor(tmp_path / "gone", tmp_path / "none"), lambda: None)
    lent = orders("in-use")
    said: list[int] = []

    async def say(epoch: int, reason: str) -> str:
        said.append(epoch)
        if len(said) == 1:
            raise Unreachable
        return "in-use"

    with pytest.raises(Unreachable):
        await health.tell(say, lent, "check gpu: gone")
    assert await health.tell(say, lent, "check gpu: gone")
    assert said == [8, 8]


async def test_that_it_is_well_again_is_said_once_of_a_machine_that_stayed_with_somebody(tmp_path: Path) -> None:
    health = Health(executor(tmp_path, tmp_path / "none"), lambda: None)
    said: list[int] = []

    async def say_well(epoch: int) -> None:
        said.append(epoch)

    async def say(epoch: int, reason: str) -> str:
        return "in-use"

    async def rounds() -> None:
        for _ in range(WELL_ROUNDS):
            await health.look()
        await health.tell_well(say_well, orders("in-use"))

    health.note(orders("in-use"))
    await rounds()
    assert said == [8]  # an earlier client may have said that it is not
    await rounds()
    assert said == [8]
    await health.tell(say, orders("in-use"), "check gpu: gone")
    await rounds()
    assert said == [8, 8]


KILLED = """
import asyncio, sys
from pathlib import Path
from client.processes import adopt_orphans
from tests.integration.test_health import Check, executor

async def main(place):
    adopt_orphans()
    check = Check(place / "checks.d").install()
    own = executor(place, check.directory)
    looking = asyncio.create_task(own.check(lent=True))
    await check.begins()
    check.does("exit 0")
    await (own.wipe if "wipe" in sys.argv else own.kill)()
    await looking

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.parametrize("how", ["kill", "wipe"])
async def test_a_check_that_goes_with_a_session_is_made_again(tmp_path: Path, how: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", KILLED, str(tmp_path), how), stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(LIMIT_SECONDS):
        _, said = await process.communicate()
    assert (process.returncode, said.decode()) == (0, "")


@pytest.mark.postgresql
async def test_a_machine_is_wiped_once_however_long_it_is_looked_at_then(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.health._PATIENCE_SECONDS", 0)
    pool = await Pool.of(database)
    await pool.hello_every(0.1)
    vm = Machine.of(await database.vm("vm-1"), tmp_path / "vm-1")
    vm.executor = executor(vm.state.root, tmp_path / "checks.d")
    async with vm.serving():
        lease = await pool.request_job(vm.job())
        await pool.finished(lease)
        check = Check(tmp_path / "checks.d").install(": < goes-on")
        await pool.end(lease)
        await reached(lambda: "wiped" in vm.steps)
        for _ in range(2):
            await pool.until(HEARD, await pool.owner.fetchval("SELECT seen_at FROM vm_heartbeats"))
        assert vm.steps.count("wiped") == 1
        opened = os.open(check.directory / "goes-on", os.O_RDWR)
        await pool.available(vm)
        os.close(opened)

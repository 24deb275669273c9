"""Thousands of machines in a process. Transport and agent are the real client's; disk and command are not.

The journal keeps all its rules and writes nothing; a command counts as started at once and runs until its lease ends.
So what is timed is how a machine hears of its work and takes it up, not how fast this one computer is in place of all.
"""

import asyncio
import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client.agent import Agent
from client.command import Command
from client.direct import DirectTransport
from client.hub import HubTransport
from client.journal import Journal
from client.protocol import Assignment, Memory, Orders
from client.records import Fence, encode_all
from client.rotation import Passwords
from client.runner import Finished
from client.settings import Credential, DatabaseLogin, StateDir
from client.transport import Backoff
from tests.bench.process import many_files
from tests.bench.sides.fleet import end, serve
from tests.bench.workers import Ready, be_worker

NOWHERE = Path("/nonexistent")
AT_ONCE = 64
"""How many machines of a process connect for the first time together; what comes in a herd is another matter."""

State = tuple[int, int, int]
"""A machine, its epoch, and when it heard of that."""

Lease = tuple[int, int, int, int]
"""A machine and its epoch, and when the machine had its orders, and had its command."""


def password(seed: str, number: int) -> str:
    """The password of a machine, made anew wherever it is needed."""
    return hashlib.sha256(f"{seed} {number}".encode()).hexdigest()


class Woken(asyncio.Event):
    """An event that remembers when it was set."""

    at = 0

    def set(self) -> None:
        if not self.is_set():
            self.at = time.monotonic_ns()
        super().set()


@dataclass(slots=True)
class Notes:
    """What one machine saw, in nanoseconds of the clock that all processes share."""

    wake: Woken = field(default_factory=Woken)
    leases: list[Lease] = field(default_factory=list)
    met: list[tuple[int, int]] = field(default_factory=list)
    """For every link: when it was known that there must be a new one, and when the first hello over it was answered."""
    states: list[State] = field(default_factory=list)
    """Every state that it heard of, with the moment."""
    odd: int = 0
    """How often an epoch was lower than one before, or the machine was to be neither free nor lent."""
    greeted: asyncio.Event = field(default_factory=asyncio.Event)
    _link: object = None
    _epoch: int = -1
    _had: dict[int, int] = field(default_factory=dict)

    def hears(self, orders: Orders, link: object) -> None:
        """It said hello over this link and was answered."""
        moment = time.monotonic_ns()
        if link is not self._link:
            self._link = link
            self.met.append((self.wake.at, moment))
            self.odd += orders.status not in ("available", "in-use") or orders.epoch < self._epoch
        if orders.epoch != self._epoch:
            self._epoch = orders.epoch
            self.states.append((orders.vm_id, orders.epoch, moment))
        if orders.lease_status == "assigned":
            self._had.setdefault(orders.epoch, moment)
        self.greeted.set()

    def claims(self, vm: int, epoch: int) -> None:
        """It has the command."""
        if epoch in self._had:
            self.leases.append((vm, epoch, self._had.pop(epoch), time.monotonic_ns()))


class NotedHub(HubTransport):
    """The way over the hub, written down."""

    def __init__(self, url: str, passwords: Passwords, notes: Notes, hurry: float | None) -> None:
        super().__init__(url, passwords, notes.wake)
        self._notes, self._vm = notes, 0
        if hurry:
            self._backoff = Hurried(hurry)

    async def hello(self, memory: Memory, idle_seconds: int | None = None) -> Orders:
        orders = await super().hello(memory, idle_seconds)
        self._vm = orders.vm_id
        self._notes.hears(orders, self._link)
        return orders

    async def claim(self, epoch: int) -> Assignment:
        assignment = await super().claim(epoch)
        self._notes.claims(self._vm, epoch)
        return assignment


class NotedDirect(DirectTransport):
    """The way to PostgreSQL, written down."""

    def __init__(self, login: DatabaseLogin, notes: Notes) -> None:
        super().__init__(login, None, notes.wake)
        self._notes = notes

    async def hello(self, memory: Memory, idle_seconds: int | None = None) -> Orders:
        orders = await super().hello(memory, idle_seconds)
        self._notes.hears(orders, self._connection)
        return orders

    async def claim(self, epoch: int) -> Assignment:
        assignment = await super().claim(epoch)
        self._notes.claims(self._vm_id or 0, epoch)
        return assignment


class Hurried(Backoff):
    """For machines that are asked to come within so many seconds: they do, however often it went wrong."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)

    def delay(self) -> float:
        self.reset()
        return super().delay()


class UnwrittenJournal(Journal):
    """A journal that remembers as always, without a disk."""

    def _read(self) -> bytes:
        return encode_all([Fence(0)])[0]

    def _write_all(self) -> None:
        return

    def _append(self, entry: Any) -> None:
        self._entries[entry.key] = entry


class Endless:
    """A command that is said to run until it is ended."""

    def __init__(self) -> None:
        self._over = asyncio.Event()

    async def wait(self) -> Finished:
        await self._over.wait()
        return Finished(None, "", failure="timed-out")

    async def end(self) -> None:
        self._over.set()


class NoSession:
    """An executor that runs nothing and has nothing to clean."""

    async def check(self, *, lent: bool = False) -> None:
        return

    async def usage(self) -> None:
        return

    async def start(self, command: Command, *, name: str, limit_seconds: float) -> Endless:
        return Endless()

    async def runs(self) -> bool:
        return True

    async def kill(self) -> None:
        return

    async def wipe(self) -> None:
        return


async def live(task: dict[str, Any], ready: Ready, stop: asyncio.Event) -> dict[str, Any]:
    """The machines of `task` until told to stop; returns what they saw."""
    many_files()
    everyones = [Notes() for _ in task["numbers"]]
    room = asyncio.Semaphore(AT_ONCE)
    pairs = zip(task["numbers"], everyones, strict=True)
    runs = [asyncio.create_task(_run(task, number, notes, room)) for number, notes in pairs]
    await serve(runs, [notes.greeted for notes in everyones], ready, stop)
    seen = {
        "leases": [lease for notes in everyones for lease in notes.leases],
        "met": [notes.met for notes in everyones],
        "states": [state for notes in everyones for state in notes.states],
        "odd": sum(notes.odd for notes in everyones),
        "cpu": time.process_time(),
    }
    await end(runs)
    return seen


async def _run(task: dict[str, Any], number: int, notes: Notes, room: asyncio.Semaphore) -> None:
    """One machine. It arrives when there is room."""
    login = DatabaseLogin(
        **task["login"] | {"user": f"lablink_vm_{number:016x}"}, password=password(task["seed"], number)
    )
    passwords = Passwords(StateDir(NOWHERE), Credential(number, f"vm-{number}", "hub", login, task["url"]))
    way = NotedHub(task["url"], passwords, notes, task["hurry"]) if task["url"] else NotedDirect(login, notes)
    agent = Agent(way, UnwrittenJournal(NOWHERE), NoSession())
    async with room:
        running = asyncio.create_task(agent.run())
        await asyncio.wait({running, asyncio.create_task(notes.greeted.wait())}, return_when=asyncio.FIRST_COMPLETED)
    try:
        await running
    finally:
        running.cancel()


if __name__ == "__main__":
    be_worker(live)

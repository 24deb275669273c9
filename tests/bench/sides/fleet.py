"""LabLink's own clients, several in a process, each with its own state directory, role, connection and journal.

They are the real ones in all but the process: enrolment, agent, transport, journal, session and runner are `client`'s.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client.agent import Agent
from client.direct import DirectTransport
from client.enrol import Invitation, enrol
from client.executor import OwnExecutor
from client.journal import Journal
from client.protocol import Assignment, Memory, Orders
from client.runner import Programs
from client.session import Session
from client.settings import DatabaseLogin, StateDir
from tests.bench.load import now
from tests.bench.workers import Ready, be_worker

Steps = dict[str, int]
"""When a machine did what for one lease: woke, said hello, claimed, wrote its intent, started the command."""


@dataclass(slots=True)
class Diary:
    """When one machine did what, by epoch."""

    epochs: dict[int, Steps] = field(default_factory=dict)
    epoch: int = 0
    greeted: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, step: str) -> None:
        """Something happened for the present epoch; only the first time counts."""
        if self.epoch in self.epochs:
            self.epochs[self.epoch].setdefault(step, now())


class TimedTransport(DirectTransport):
    """The transport, keeping a diary of when it wakes its agent and when each verb is answered."""

    def __init__(self, address: DatabaseLogin, diary: Diary) -> None:
        super().__init__(address)
        self._diary = diary
        self._woke: int | None = None

    async def idle(self, seconds: float) -> None:
        await super().idle(seconds)
        self._woke = now() if self.wake.is_set() else None

    async def hello(self, memory: Memory, idle_seconds: int | None = None) -> Orders:
        orders = await super().hello(memory, idle_seconds)
        diary = self._diary
        diary.epoch = orders.epoch
        if orders.lease_status == "assigned" and orders.epoch not in diary.epochs:
            diary.epochs[orders.epoch] = {"woke": self._woke} if self._woke else {}
            diary.note("hello")
        if orders.status == "available":
            diary.greeted.set()
        return orders

    async def claim(self, epoch: int) -> Assignment:
        assignment = await super().claim(epoch)
        self._diary.note("claim")
        return assignment


async def live(task: dict[str, Any], ready: Ready, stop: asyncio.Event) -> dict[str, dict[int, Steps]]:
    """The machines of `task` until told to stop; returns their diaries."""
    async with AsyncExitStack() as opened:
        diaries, runs = {}, []
        for hostname, token in task["tokens"].items():
            diary = diaries[hostname] = Diary()
            agent = await _machine(opened, Path(task["directory"]) / hostname, Invitation(task["url"], token), diary)
            runs.append(asyncio.create_task(agent.run()))
        await serve(runs, [diary.greeted for diary in diaries.values()], ready, stop)
        await end(runs)
    return {hostname: diary.epochs for hostname, diary in diaries.items()}


async def serve(
    runs: "list[asyncio.Task[Any]]", greeted: Sequence[asyncio.Event], ready: Ready, stop: asyncio.Event
) -> None:
    """Say that the machines are ready when all were greeted; returns when they are to stop, or one has."""
    greetings = asyncio.create_task(_all(greeted))
    await asyncio.wait({greetings, *runs}, return_when=asyncio.FIRST_COMPLETED)
    ready(len(runs))
    await asyncio.wait({asyncio.create_task(stop.wait()), *runs}, return_when=asyncio.FIRST_COMPLETED)


async def _all(events: Sequence[asyncio.Event]) -> None:
    for event in events:
        await event.wait()


async def end(runs: "list[asyncio.Task[Any]]") -> None:
    """Cancel all; raises what one of them ended with before."""
    for run in runs:
        run.cancel()
    for ended in await asyncio.gather(*runs, return_exceptions=True):
        if isinstance(ended, Exception):
            raise ended


async def _machine(opened: AsyncExitStack, directory: Path, invitation: Invitation, diary: Diary) -> Agent:
    directory.mkdir(parents=True)
    state = StateDir(directory)
    credential = await asyncio.to_thread(enrol, state, invitation, _silent)
    transport = await opened.enter_async_context(TimedTransport(credential.database, diary))
    return Agent(transport, Journal(state.journal), OwnExecutor(Session(state.session), Programs()), diary.note)


def _silent(_words: str) -> None:
    return


if __name__ == "__main__":
    be_worker(live)

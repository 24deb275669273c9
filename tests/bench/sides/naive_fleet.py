"""Naive machines, several in a process: each parses every payload, asks for its row and runs what it finds there."""

import asyncio
import json
import shlex
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from client.command import JobCommand
from client.network import Connection
from client.runner import Programs, start
from client.session import Session
from tests.bench.load import now
from tests.bench.sides.fleet import end
from tests.bench.workers import Ready, be_worker

MINE = "SELECT crd_command FROM vms WHERE hostname = $1"


@dataclass(slots=True)
class Machine:
    """One machine: wakes whenever its row is said to be in use."""

    hostname: str
    connection: Connection
    session: Session
    woken: asyncio.Queue[int] = field(default_factory=asyncio.Queue)
    seen: list[tuple[int, str]] = field(default_factory=list)

    def notified(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        """Parses the whole row, whoever it is about."""
        row = json.loads(str(payload))
        if row["hostname"] == self.hostname and row["status"] == "in-use":
            self.woken.put_nowait(now())

    async def run(self) -> None:
        """Runs a command for every wake-up, keeping when it woke and what the command said."""
        self.session.open()
        await self.connection.add_listener("vm_updates", self.notified)
        while True:
            woke = await self.woken.get()
            line = await self.connection.fetchval(MINE, self.hostname)
            if line:
                command = JobCommand(tuple(shlex.split(line)))
                running = await start(command, self.session, Programs(), name=self.hostname)
                self.seen.append((woke, (await running.wait()).output))


async def live(task: dict[str, Any], ready: Ready, stop: asyncio.Event) -> list[tuple[int, str]]:
    """The machines of `task` until told to stop; returns all they saw."""
    async with AsyncExitStack() as opened:
        machines = []
        for hostname in task["hostnames"]:
            connection = await asyncpg.connect(task["dsn"])
            opened.push_async_callback(connection.close)
            machines.append(Machine(hostname, connection, Session(Path(task["directory"]) / hostname)))
        runs = [asyncio.create_task(machine.run()) for machine in machines]
        ready(len(machines))
        await asyncio.wait({asyncio.create_task(stop.wait()), *runs}, return_when=asyncio.FIRST_COMPLETED)
        await end(runs)
        return [each for machine in machines for each in machine.seen]


if __name__ == "__main__":
    be_worker(live)

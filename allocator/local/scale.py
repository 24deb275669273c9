"""Starts and stops clients of `lablink up` as the pool grows and shrinks."""

from collections.abc import Sequence

import asyncpg

from allocator.local.installation import Installation
from allocator.local.machines import POOL, Machines
from allocator.local.readiness import all_seen, note_boots
from allocator.local.supervisor import Crew, Say
from allocator.operations import running, sentence, who
from allocator.scaling import Scaler

LOOK_SECONDS = 1.0


class LocalActuator:
    """The machines of one `lablink up`, which are the processes of a crew."""

    pool = POOL

    def __init__(self, installation: Installation, machines: Machines, crew: Crew, say: Say) -> None:
        self._installation = installation
        self._machines = machines
        self._crew = crew
        self._say = say

    @property
    def own(self) -> list[str]:
        """The machines whose clients run."""
        return self._crew.names

    async def run(self) -> None:
        """Scale until cancelled."""
        await Scaler(self._connect, self, self._complain, LOOK_SECONDS).run()

    async def grow(self, pool: str, number: int) -> None:
        """Start so many more; returns when they have said hello. Raises UpFailed when none does, OperationRefused."""
        async with running(self._connect, "local grow", who("up"), number, pool=pool) as operation:
            hostnames = await self._machines.add(number, self._crew.names)
            self._crew.start(self._machines.clients(hostnames))
            self._say(f"The pool grows: {', '.join(hostnames)}.")
            async with self._installation.owner() as connection:
                await all_seen(connection, hostnames)
                await note_boots(connection, hostnames)
            operation.result = {"make": hostnames}

    async def let_go(self, pool: str, hostnames: Sequence[str]) -> None:
        """Retire and stop these, or none where somebody was lent one by hand. Raises OperationRefused."""
        async with running(self._connect, "local shrink", who("up"), len(hostnames), pool=pool) as operation:
            if await self._machines.retire(hostnames):
                return
            await self._crew.stop(hostnames)
            self._machines.discard(hostnames)
            self._say(f"The pool shrinks: {', '.join(hostnames)} went.")
            operation.result = {"remove": list(hostnames)}

    def _complain(self, error: Exception) -> None:
        self._say(f"The pool keeps its size for a minute: {sentence(error)}")

    async def _connect(self) -> asyncpg.Connection:
        settings = {"lablink.actor": "up", "application_name": "lablink up"}
        return await asyncpg.connect(self._installation.owner_dsn, server_settings=settings, timeout=10)

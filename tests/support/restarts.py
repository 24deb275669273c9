"""A PostgreSQL of a test's own, which it may crash and start again; the session's server is everybody's."""

import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from allocator.local.postgres import Server, running_server
from tests.support.server import TestServer

CRASH_SAFE = {"fsync": "off", "full_page_writes": "off"}
"""What survives a crash of PostgreSQL alone: every commit has reached the kernel."""


@dataclass(slots=True)
class Crashing:
    """A server under `directory`, always at the same port."""

    directory: Path
    version: int | None
    server: Server | None = None
    _running: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> TestServer:
        """Start it; what was committed before is there."""
        starting = running_server(self.directory, version=self.version, settings=CRASH_SAFE)
        self.server = await self._running.enter_async_context(starting)
        return TestServer(self.server.dsn(), self.server.version)

    async def crash(self) -> None:
        """Have every process of it quit at once, whatever it was doing."""
        assert self.server is not None
        self.server.process.send_signal(signal.SIGQUIT)
        await self.server.process.wait()
        await self.stop()

    async def stop(self) -> None:
        """Stop it, if it runs."""
        await self._running.aclose()

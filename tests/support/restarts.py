"""A PostgreSQL of a test's own, which it may crash and start again; the session's server is everybody's."""

import os
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from allocator.local import UpFailed
from allocator.local.postgres import Server, running_server
from allocator.local.postgres_binaries import find_binaries
from tests.support.server import TestServer, initialise
from tests.support.up import free_port

CRASH_SAFE = {"fsync": "off", "full_page_writes": "off", "authentication_timeout": "60s"}
"""What survives a crash of PostgreSQL alone, where every commit has reached the kernel; and nobody is hurried."""


@dataclass(slots=True)
class Crashing:
    """A server under `directory`, always at the same port."""

    directory: Path
    version: int | None
    server: Server | None = None
    _running: AsyncExitStack = field(default_factory=AsyncExitStack)

    @classmethod
    def under(cls, directory: Path) -> "Crashing":
        """A server of the version that is tested, not started yet. Skips the test where none can be."""
        wanted = os.environ.get("LABLINK_TEST_PG")
        version = int(wanted) if wanted else None
        try:
            find_binaries(version)
        except UpFailed as error:
            pytest.skip(f"only a server on this machine can be crashed: {error}")
        return cls(directory, version)

    async def start(self) -> TestServer:
        """Start it; what was committed before is there."""
        port = self.directory / "postgres.port"
        if not port.exists():
            self.directory.mkdir(exist_ok=True)
            await initialise(self.directory, find_binaries(self.version).version)
            port.write_text(str(free_port()))
        starting = running_server(self.directory, version=self.version, settings=CRASH_SAFE)
        self.server = await self._running.enter_async_context(starting)
        return TestServer(self.server.dsn(), self.server.version)

    async def crash(self, sign: signal.Signals = signal.SIGQUIT) -> None:
        """Have every process of it quit at once, whatever it was doing; with SIGKILL as if the machine had lost it."""
        assert self.server is not None
        self.server.process.send_signal(sign)
        await self.server.process.wait()
        await self.stop()

    async def stop(self) -> None:
        """Stop it, if it runs."""
        await self._running.aclose()

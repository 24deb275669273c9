"""`lablink serve` as people and machines meet it: a process that can be killed, and comes again at the same address."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from allocator.local.installation import Installation
from allocator.local.postgres_process import free_port
from allocator.local.readiness import page_ready
from allocator.local.supervisor import Child, environment
from tests.bench.cores import seconds_of
from tests.bench.ground import Ground


@dataclass(slots=True)
class Served:
    """An allocator. It is not there while it is killed: whoever comes is refused."""

    port: int
    child: Child

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def seconds(self) -> float:
        """Of processor time, since it was started."""
        return seconds_of(self.child.process.pid) if self.child.process else 0.0

    async def start(self) -> None:
        """Start it; returns when it is ready."""
        await self.child.start()
        await page_ready(self.port)

    async def end(self, sign: signal.Signals) -> None:
        """Signal it, and wait until it has ended."""
        if self.child.process and self.child.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.child.process.pid, sign)
            await self.child.process.wait()


@asynccontextmanager
async def serving(own: Ground, *settings: str) -> AsyncIterator[Served]:
    """One with these settings that runs when the block begins, and does not at its end."""
    port = free_port(0)
    Installation(own.directory, port, own.server).write_settings()
    told = [f"--set={setting}" for setting in (*settings, f"server.port={port}")]
    command = ["lablink", "serve", f"--data-dir={own.directory}", *told]
    allocator = Served(port, Child("The allocator", command, own.directory / f"allocator-{port}.log", environment()))
    try:
        await allocator.start()
        yield allocator
    finally:
        await allocator.end(signal.SIGKILL)

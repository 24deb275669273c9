"""The allocator as people start it: `lablink serve`, a process of its own."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support import LIMIT_SECONDS
from tests.support.admin import place
from tests.support.database import PASSWORDS, Database
from tests.support.service import NO_TLS
from tests.support.up import LOOK_EVERY, free_port

ROOT = Path(__file__).parents[2]
LABLINK = (sys.executable, "-c", "from allocator.cli import main; main()")
"""The command `lablink` of the code in the directory that it is started in."""

SERVICE = ("pool.programs=[sh]", "sweeps.period_seconds=0.2", "log.level=error")


@dataclass(slots=True)
class Allocator:
    """Where it listens, whichever database it is on. `code` is the checkout that it runs."""

    port: int
    code: Path = ROOT
    process: asyncio.subprocess.Process | None = None

    @classmethod
    def somewhere(cls, code: Path = ROOT) -> "Allocator":
        """One at a free port."""
        return cls(free_port(), code)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def serving(self, database: Database, *settings: str) -> AsyncIterator[None]:
        """It runs on that database; ready when the block begins, and has ended when the block has."""
        own = [f"server.port={self.port}", *SERVICE, *settings]
        self.process = await lablink(self.code, "serve", *place(database.dsn()), *own)
        try:
            await self.is_ready()
            yield
        finally:
            await self.stop()

    async def stop(self) -> int:
        """Tell it to stop, unless it has ended, and wait. Returns its exit code, less than 0 when it was killed."""
        assert self.process
        self.tell_to_stop()
        async with asyncio.timeout(LIMIT_SECONDS):
            return await self.process.wait()

    def tell_to_stop(self) -> None:
        """Tell it to stop, unless it has ended."""
        assert self.process
        with suppress(ProcessLookupError):
            self.process.terminate()

    async def kill(self) -> None:
        """Kill it with -9, unless it has ended."""
        assert self.process
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def is_ready(self) -> None:
        """Return once it says that requests can be served."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while await self.readiness() != httpx.codes.OK:  # noqa: ASYNC110
                await asyncio.sleep(LOOK_EVERY)

    async def readiness(self) -> int:
        """The status of its /readyz; 0 when nobody answers."""
        async with httpx.AsyncClient(timeout=LIMIT_SECONDS, verify=NO_TLS) as client:
            with suppress(httpx.TransportError):
                return (await client.get(f"{self.url}/readyz")).status_code
        return 0

    async def figure(self, name: str) -> float:
        """One of its metrics, named with its labels if it has some."""
        async with httpx.AsyncClient(timeout=LIMIT_SECONDS, verify=NO_TLS) as client:
            found = re.search(
                rf"^{re.escape(name)} (\S+)$", (await client.get(f"{self.url}/metrics")).text, re.MULTILINE
            )
        assert found, f"there is no {name}"
        return float(found[1])


async def lablink(code: Path, *arguments: str) -> asyncio.subprocess.Process:
    """A `lablink` command of the code in this directory, under way."""
    passwords = {"OWNER": PASSWORDS["lablink"], "SERVICE": PASSWORDS["lablink_app"]}
    return await asyncio.create_subprocess_exec(*LABLINK, *arguments, cwd=code, env={**os.environ, **passwords})

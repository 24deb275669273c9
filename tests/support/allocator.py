"""The allocator as people start it: `lablink serve`, a process of its own."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import httpx

from tests.support.admin import place
from tests.support.database import PASSWORDS, Database
from tests.support.up import LABLINK, LIMIT_SECONDS, LOOK_EVERY


@dataclass(frozen=True, slots=True)
class Allocator:
    """Where it listens, whichever database it is on."""

    port: int

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def serving(self, database: Database) -> AsyncIterator[None]:
        """It runs on that database; ready when the block begins, and has ended when the block has."""
        settings = [f"server.port={self.port}", "pool.programs=[sh]", "sweeps.period_seconds=0.2", "log.level=error"]
        process = await asyncio.create_subprocess_exec(
            LABLINK,
            "serve",
            *place(database.dsn()),
            *settings,
            env={**os.environ, "OWNER": PASSWORDS["lablink"], "SERVICE": PASSWORDS["lablink_app"]},
        )
        try:
            await self.is_ready()
            yield
        finally:
            process.terminate()
            await process.wait()

    async def is_ready(self) -> None:
        """Return once it says that requests can be served."""
        async with asyncio.timeout(LIMIT_SECONDS), httpx.AsyncClient(timeout=LIMIT_SECONDS) as client:
            while not await self._answers(client):  # noqa: ASYNC110
                await asyncio.sleep(LOOK_EVERY)

    async def _answers(self, client: httpx.AsyncClient) -> bool:
        with suppress(httpx.TransportError):
            return (await client.get(f"{self.url}/readyz")).is_success
        return False

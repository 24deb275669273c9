"""Open pages as browsers keep them: one whose stream ends opens another, after as long as it was told to wait."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from allocator.tasks import alongside
from tests.bench.process import becomes

PAGES = 20
OPEN_SECONDS = 20.0
BEAT = b"event: beat\n"
RETRY = b"retry: "


@dataclass(slots=True)
class Page:
    """One page, at this port. Moments are nanoseconds of the clock that all processes share."""

    port: int
    lost: list[int] = field(default_factory=list)
    """When its streams ended."""
    live: list[int] = field(default_factory=list)
    """When it heard the first of each stream."""
    _retry_seconds: float = 1.0

    @property
    def is_live(self) -> bool:
        """Whether it hears what changes."""
        return len(self.live) > len(self.lost)

    async def read(self) -> None:
        """Follow for ever."""
        while True:
            with suppress(OSError):
                await self._follow(*await asyncio.open_connection("127.0.0.1", self.port))
            if self.is_live:
                self.lost.append(time.monotonic_ns())
            await asyncio.sleep(self._retry_seconds)

    async def _follow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"GET /stream HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n\r\n".encode())
        try:
            async for line in reader:
                if line.startswith(RETRY):
                    self._retry_seconds = int(line.removeprefix(RETRY)) / 1000
                elif line == BEAT and not self.is_live:
                    self.live.append(time.monotonic_ns())
        finally:
            writer.transport.abort()


@asynccontextmanager
async def reading(port: int) -> AsyncIterator[list[Page]]:
    """Some of them, all live when the block begins."""
    pages = [Page(port) for _ in range(PAGES)]

    async def read() -> None:
        await asyncio.gather(*(page.read() for page in pages))

    async with alongside(read()):
        await becomes(lambda: all(page.is_live for page in pages), OPEN_SECONDS)
        yield pages

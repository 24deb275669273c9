"""What stands before allocators, as a load balancer does: a door whose other side can be changed, cut and stalled."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(slots=True)
class Front:
    """Where machines connect. `leads_to` is the port of the allocator that takes the next connection."""

    leads_to: int
    port: int = 0
    stalls: bool = False
    """Nothing that is sent arrives any more, and nobody is told: a half-open connection."""
    accepted: int = 0
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def held(self) -> int:
        """How many ends of connections are open."""
        return len(self._open)

    def lead_to(self, url: str) -> None:
        """Whoever connects from now on comes to this allocator."""
        self.leads_to = urlsplit(url).port or 0

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._open:
            writer.transport.abort()

    async def reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to whoever takes the next one. Raises OSError when nobody does."""
        return await asyncio.open_connection("127.0.0.1", self.leads_to)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either side ends it."""
        self.accepted += 1
        with suppress(OSError):
            far_reader, far_writer = await self.reach()
            both = {writer, far_writer}
            self._open |= both
            try:
                await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
            finally:
                self._open -= both
                far_writer.transport.abort()
        writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if not self.stalls:
                    writer.write(data)
                    await writer.drain()
        if not self.stalls:
            writer.close()


@asynccontextmanager
async def front_of(url: str) -> AsyncIterator[Front]:
    """A front that leads to the allocator at this address."""
    front = Front(urlsplit(url).port or 0)
    async with listening(front):
        yield front


@asynccontextmanager
async def listening(front: Front) -> AsyncIterator[None]:
    """In the block it takes connections."""
    async with await asyncio.start_server(front.accept, "127.0.0.1", 0) as listener:
        front.port = int(listener.sockets[0].getsockname()[1])
        try:
            yield
        finally:
            front.cut()

"""A wire to PostgreSQL that understands its messages, so that a test can lose exactly the one it means to lose."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from tests.support.server import TestServer

_NOTIFICATION, _READY = b"A", b"Z"
_PARSE, _BIND, _QUERY = b"P", b"B", b"Q"


@dataclass(slots=True)
class Loss:
    """The next statement that contains `verb` gets lost: before the server has seen it, or on the way back."""

    verb: str
    what: Literal["request", "answer"]
    happened: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Wire:
    """Where clients connect instead of to the server, and instead of to the pooler before it if there is one."""

    port: int = 0
    pooler_port: int | None = None
    drops_notifications: bool = False
    misheard: dict[bytes, bytes] = field(default_factory=dict)
    """What the next statement that contains a key becomes: the value, which must be as long."""
    refuses: bool = False
    stalls: bool = False
    """Nothing that the server sends arrives any more, and nobody is told: a half-open connection."""
    accepted: int = 0
    _losses: list[Loss] = field(default_factory=list)
    _links: set["_Link"] = field(default_factory=set)

    def lose(self, what: Literal["request", "answer"], verb: str) -> Loss:
        """Arrange for the next use of `verb` to get lost, and the connection with it."""
        loss = Loss(verb, what)
        self._losses.append(loss)
        return loss

    def cut(self) -> int:
        """Reset every connection. Returns how many there were."""
        links = list(self._links)
        for link in links:
            link.cut()
        return len(links)

    @contextmanager
    def down(self) -> Iterator[None]:
        """Nobody gets through, and whoever is connected is cut off."""
        self.refuses = True
        self.cut()
        yield
        self.refuses = False

    def take_loss(self, statement: str) -> Loss | None:
        """The loss that was arranged for this statement, once."""
        for loss in self._losses:
            if loss.verb in statement:
                self._losses.remove(loss)
                return loss
        return None

    def mishear(self, body: bytes) -> bytes:
        """The message as it arrives."""
        for word in [word for word in self.misheard if word in body]:
            body = body.replace(word, self.misheard.pop(word))
        return body

    @asynccontextmanager
    async def end(self, host: str, port: int) -> AsyncIterator[int]:
        """The port of an end of the wire whose other end is at this address."""

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.accepted += 1
            if not self.refuses:
                await self._carry(reader, writer, host, port)
            writer.transport.abort()

        async with await asyncio.start_server(accept, "127.0.0.1", 0) as listener:
            yield int(listener.sockets[0].getsockname()[1])

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
        """Carry one connection until either side ends it."""
        with suppress(OSError):
            server_reader, server_writer = await asyncio.open_connection(host, port)
            link = _Link(self, writer, server_writer)
            self._links.add(link)
            try:
                await link.carry(reader, server_reader)
            finally:
                link.cut()
                self._links.discard(link)


@dataclass(eq=False, slots=True)
class _Link:
    wire: Wire
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    statements: dict[bytes, str] = field(default_factory=dict)
    loss: Loss | None = None

    async def carry(self, client: asyncio.StreamReader, server: asyncio.StreamReader) -> None:
        """Pump both ways until one side ends."""
        pumps = [asyncio.create_task(self._upwards(client)), asyncio.create_task(self._downwards(server))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    def cut(self) -> None:
        self.client.transport.abort()
        self.server.transport.abort()

    async def _upwards(self, client: asyncio.StreamReader) -> None:
        length = await client.readexactly(4)
        self.server.write(length + await client.readexactly(int.from_bytes(length) - 4))
        while True:
            kind, body = await _message(client)
            self._note(kind, body)
            if self.loss and self.loss.what == "request":
                self.loss.happened.set()
                return
            self.server.write(kind + (len(body) + 4).to_bytes(4) + self.wire.mishear(body))

    def _note(self, kind: bytes, body: bytes) -> None:
        if kind == _PARSE:
            name, query, _ = body.split(b"\0", 2)
            self.statements[name] = query.decode()
        elif kind == _BIND:
            _, name, _ = body.split(b"\0", 2)
            self.loss = self.loss or self.wire.take_loss(self.statements.get(name, ""))
        elif kind == _QUERY:
            self.loss = self.loss or self.wire.take_loss(body.decode())

    async def _downwards(self, server: asyncio.StreamReader) -> None:
        while True:
            kind, body = await _message(server)
            if self.loss and kind == _READY:
                self.loss.happened.set()
                return
            if not self.loss and not self.wire.stalls and not (kind == _NOTIFICATION and self.wire.drops_notifications):
                self.client.write(kind + (len(body) + 4).to_bytes(4) + body)


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    kind = await reader.readexactly(1)
    length = int.from_bytes(await reader.readexactly(4))
    return kind, await reader.readexactly(length - 4)


@asynccontextmanager
async def wire_to(server: TestServer) -> AsyncIterator[Wire]:
    """A wire to a server and to the pooler before it."""
    wire, place = Wire(), urlsplit(server.superuser_dsn)
    async with AsyncExitStack() as ends:
        wire.port = await ends.enter_async_context(wire.end(place.hostname or "", place.port or 5432))
        if server.pooler_port:
            wire.pooler_port = await ends.enter_async_context(wire.end("127.0.0.1", server.pooler_port))
        yield wire
        wire.cut()

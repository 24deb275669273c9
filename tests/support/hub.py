"""A machine that speaks over the hub, and somebody who says there what no client would."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
from websockets.asyncio.client import ClientConnection, connect

from client.hub import HubTransport
from client.link import PING_SECONDS, socket_url
from client.protocol import CHANNEL, HUB_PATH, Memory
from client.scram import hub_sha256, hub_token
from client.transport import REFUSED_PATIENCE_SECONDS
from tests.support import LIMIT_SECONDS
from tests.support.database import Database
from tests.support.machine import Machine
from tests.support.service import RunningService

NOTHING = Memory(0, None)
"""What a machine remembers that was never lent."""

HELLO: dict[str, object] = {"verb": "hello", "epoch": 0, "lease_id": None}
"""How it says that."""


async def hub_machine(database: Database, root: Path, hostname: str = "vm-1") -> Machine:
    """A machine that is available, and known to the hub."""
    machine = Machine.of(await database.vm(hostname), root)
    connection = await machine.vm.connect()
    await connection.execute("SELECT client_api.keep_hub_token($1)", hub_sha256(machine.address.password))
    await connection.close()
    return machine


def hub_transport(machine: Machine, url: str, refused_patience: float = REFUSED_PATIENCE_SECONDS) -> HubTransport:
    """The machine's own way over the hub at this address."""
    return HubTransport(url, machine.passwords(), refused_patience=refused_patience)


@dataclass(frozen=True, slots=True)
class Talker:
    """An open WebSocket."""

    socket: ClientConnection

    async def say(self, message: str | bytes | dict[str, object]) -> None:
        """Send it."""
        await self.socket.send(json.dumps(message) if isinstance(message, dict) else message)

    async def hears(self) -> dict[str, Any]:
        """The next message."""
        async with asyncio.timeout(LIMIT_SECONDS):
            told: dict[str, Any] = json.loads(await self.socket.recv())
            return told

    async def answered(self) -> dict[str, Any]:
        """The next message that is no wake-up: what the machine was before may be heard of at any time."""
        while "wake" in (told := await self.hears()):
            pass
        return told

    async def is_closed(self) -> int | None:
        """The code that it was closed with. Fails when it is not."""
        async with asyncio.timeout(LIMIT_SECONDS):
            await self.socket.wait_closed()
        return self.socket.close_code


@asynccontextmanager
async def talking(url: str, password: str | None, **headers: str) -> AsyncIterator[Talker]:
    """Whoever has the token of this password, connected to the hub at this address."""
    shown = headers | ({"Authorization": f"Bearer {hub_token(password)}"} if password else {})
    opening = connect(
        socket_url(url),
        additional_headers=shown,
        ping_interval=PING_SECONDS,  # as machines do: who does not is silent, and is cut off
        ping_timeout=None,
        proxy=None,
    )
    async with opening as socket:
        yield Talker(socket)


@asynccontextmanager
async def bare(service: RunningService) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that says nothing by itself, as a library would."""
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(service.url).port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def handshake(password: str) -> bytes:
    """With which whoever has the token of this password asks for a WebSocket."""
    lines = [
        f"GET {HUB_PATH} HTTP/1.1",
        "Host: 127.0.0.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        f"Authorization: Bearer {hub_token(password)}",
        "\r\n",
    ]
    return "\r\n".join(lines).encode()


@asynccontextmanager
async def let_in(
    service: RunningService, password: str
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare link, which is made again if it was given up before it was one: all stood still for as long as that."""
    head = b""
    async with AsyncExitStack() as opened:
        while not head:
            reader, writer = await opened.enter_async_context(bare(service))
            writer.write(handshake(password))
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                head = await reader.readuntil(b"\r\n\r\n")
        assert b"101 Switching Protocols" in head
        yield reader, writer


async def ended(reader: asyncio.StreamReader) -> bool:
    """True once the other side has ended it; fails the test if it does not."""
    async with asyncio.timeout(LIMIT_SECONDS):
        try:
            while await reader.read(65_536):
                pass
        except ConnectionResetError:
            pass
    return True


async def has_heard_all(service: RunningService, owner: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Return once the service has heard of every change up to now: that of something else comes after all of them."""
    feed, word, heard = service.service.feed, str(uuid4()), asyncio.Event()
    tell = feed._tell_heard

    def listen(pid: int, channel: str, payload: str) -> None:
        tell(pid, channel, payload)
        if payload == word:
            heard.set()

    feed._tell_heard = listen
    await owner.execute("SELECT pg_notify($1, $2)", CHANNEL, word)
    async with asyncio.timeout(LIMIT_SECONDS):
        await heard.wait()
    feed._tell_heard = tell

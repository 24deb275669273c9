"""A machine that speaks over the hub, and somebody who says there what no client would."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from client.hub import HubTransport
from client.link import socket_url
from client.protocol import Memory
from client.scram import hub_sha256, hub_token
from client.transport import REFUSED_PATIENCE_SECONDS
from tests.support.database import Database
from tests.support.machine import LIMIT_SECONDS, Machine

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

    async def is_closed(self) -> int | None:
        """The code that it was closed with. Fails when it is not."""
        async with asyncio.timeout(LIMIT_SECONDS):
            await self.socket.wait_closed()
        return self.socket.close_code


@asynccontextmanager
async def talking(url: str, password: str | None, **headers: str) -> AsyncIterator[Talker]:
    """Whoever has the token of this password, connected to the hub at this address."""
    shown = headers | ({"Authorization": f"Bearer {hub_token(password)}"} if password else {})
    async with connect(socket_url(url), additional_headers=shown, proxy=None) as socket:
        yield Talker(socket)

"""A pair of ears for tests: what arrived on LabLink's channels, told apart by where a test drew a line."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from allocator.standing import LEASE_CHANNEL
from client.protocol import CHANNEL

END = "the end"


class Ears:
    """Collects the payloads of both channels on one connection."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.payloads: dict[str, list[str]] = {CHANNEL: [], LEASE_CHANNEL: []}
        self._connection = connection
        self._ended = False

    @property
    def all_payloads(self) -> list[str]:
        return self.payloads[CHANNEL] + self.payloads[LEASE_CHANNEL]

    def hints(self, channel: str = CHANNEL) -> list[dict[str, Any]]:
        return [hint for payload in self.payloads[channel] for hint in json.loads(payload)]

    async def catch_up(self) -> None:
        """Returns when all that was committed before has arrived: notifications keep the order of commits."""
        self._ended = False
        await self._connection.execute("SELECT pg_notify($1, $2)", CHANNEL, END)
        while not self._ended:
            await self._connection.execute("SELECT")

    def forget(self) -> None:
        for payloads in self.payloads.values():
            payloads.clear()

    def hear(self, _connection: object, _pid: int, channel: str, payload: object) -> None:
        if payload == END:
            self._ended = True
        else:
            self.payloads[channel].append(str(payload))


@asynccontextmanager
async def ears(connection: asyncpg.Connection) -> AsyncIterator[Ears]:
    """Listens on `connection` to both channels."""
    ours = Ears(connection)
    for channel in ours.payloads:
        await connection.add_listener(channel, ours.hear)
    yield ours
    for channel in ours.payloads:
        await connection.remove_listener(channel, ours.hear)

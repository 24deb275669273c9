"""Thousands of machines in a process that listen and do no more: their orders reach them, and no claim follows.

So what is timed is how orders come, not how fast this one computer is in place of all machines. Each is as little of a
WebSocket as the allocator takes for one, with the pings and hellos that a real machine sends.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from client.link import PING_SECONDS
from client.protocol import HUB_PATH
from client.scram import hub_token
from tests.bench.process import many_files
from tests.bench.sides.swarm import AT_ONCE, password
from tests.bench.workers import Ready, be_worker

HELLO = json.dumps({"verb": "hello", "epoch": 0, "lease_id": None}).encode()
HELLO_SECONDS = 20.0
TEXT, PING = 0x81, 0x89
OPEN = (
    f"GET {HUB_PATH} HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: bGlzdGVuZXJsaXN0ZW5lcg==\r\nAuthorization: Bearer %s\r\n\r\n"
)


def frame(opcode: int, payload: bytes = b"") -> bytes:
    """A short frame as clients send it; masked with zeros, so that it is as it was."""
    return bytes((opcode, 0x80 | len(payload), 0, 0, 0, 0)) + payload


class Listener(asyncio.Protocol):
    """One machine's WebSocket; `heard` are the moments at which something came, and what it was, as yet unread."""

    def __init__(self, host: str, token: str) -> None:
        self._open = (OPEN % (host, token)).encode()
        self._rest = b""
        self._upgraded = False
        self.heard: list[tuple[int, bytes]] = []
        self.greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._open)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.greeted.done():
            self.greeted.set_exception(error or ConnectionError("the allocator let a machine go"))

    def data_received(self, data: bytes) -> None:
        moment, self._rest = time.monotonic_ns(), self._rest + data
        if not self._upgraded:
            head, end, self._rest = self._rest.partition(b"\r\n\r\n")
            if not end:
                self._rest = head
                return
            self._upgraded = True
            self.say(TEXT, HELLO)
        while (text := self._next()) is not None:
            self._hear(moment, text)

    def say(self, opcode: int, payload: bytes = b"") -> None:
        """Send a frame."""
        self._transport.write(frame(opcode, payload))

    def _hear(self, moment: int, text: bytes) -> None:
        self.heard.append((moment, text))
        if text.startswith(b'{"wake"'):
            self.say(TEXT, HELLO)
        elif not self.greeted.done():
            self.greeted.set_result(None)

    def _next(self) -> bytes | None:
        """The next text that has come whole; what is not text says nothing."""
        while len(self._rest) >= 2:
            opcode, size, begin = self._rest[0], self._rest[1], 2
            if size == 126:
                size, begin = int.from_bytes(self._rest[2:4], "big"), 4
            if len(self._rest) < begin + size:
                return None
            payload, self._rest = self._rest[begin : begin + size], self._rest[begin + size :]
            if opcode == TEXT:
                return payload
        return None


async def listen(task: dict[str, Any], ready: Ready, stop: asyncio.Event) -> dict[str, Any]:
    """The machines of `task` until told to stop; returns when each had orders for which lease."""
    many_files()
    room = asyncio.Semaphore(AT_ONCE)
    listeners = await asyncio.gather(*(_connected(task, number, room) for number in task["numbers"]))
    ready(len(listeners))
    staying = asyncio.create_task(_stay(listeners))
    await asyncio.wait({asyncio.create_task(stop.wait()), staying}, return_when=asyncio.FIRST_COMPLETED)
    had: dict[tuple[int, int], int] = {}
    for each in listeners:
        for moment, text in each.heard:
            told = json.loads(text)
            orders = told.get("orders") or told.get("answer") or {}
            if orders.get("lease_status") == "assigned":
                had.setdefault((orders["vm_id"], orders["epoch"]), moment)
    return {"leases": [(vm, epoch, moment, moment) for (vm, epoch), moment in had.items()]}


async def _connected(task: dict[str, Any], number: int, room: asyncio.Semaphore) -> Listener:
    where, token = urlsplit(task["url"]), hub_token(password(task["seed"], number))
    async with room:
        _, listener = await asyncio.get_running_loop().create_connection(
            lambda: Listener(where.netloc, token), where.hostname, where.port
        )
        await listener.greeted
    return listener


async def _stay(listeners: Sequence[Listener]) -> None:
    """Ping as often as a real machine, each at a moment of its own, and say hello instead when that is due."""
    now = asyncio.get_running_loop().time
    hellos, begin, said = round(HELLO_SECONDS / PING_SECONDS), now(), 0
    while True:
        due = int((now() - begin) / PING_SECONDS * len(listeners))
        for count in range(said, due):
            turn, place = divmod(count, len(listeners))
            is_hello = (turn + place) % hellos == 0
            listeners[place].say(*((TEXT, HELLO) if is_hello else (PING,)))
        said = due
        await asyncio.sleep(PING_SECONDS / len(listeners))


if __name__ == "__main__":
    be_worker(listen)

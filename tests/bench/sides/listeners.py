"""Thousands of machines in a process that listen and do no more: their orders reach them, and no claim follows.

So what is timed is how orders come, not how fast this one computer is in place of all machines. Each is as little of a
WebSocket as the allocator takes for one, with the pings and hellos that a real machine sends; all of them wait in one
epoll, which the event loop sees as a single socket.
"""

import asyncio
import json
import select
import socket
import time
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
PIECE, TURN = 4096, 64
OPEN = (
    f"GET {HUB_PATH} HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: bGlzdGVuZXJsaXN0ZW5lcg==\r\nAuthorization: Bearer %s\r\n\r\n"
)


def frame(opcode: int, payload: bytes = b"") -> bytes:
    """A short frame as clients send it; masked with zeros, so that it is as it was."""
    return bytes((opcode, 0x80 | len(payload), 0, 0, 0, 0)) + payload


SAY_HELLO, SAY_PING = frame(TEXT, HELLO), frame(PING)


class Listener:
    """One machine's WebSocket; `heard` are the moments at which something came, and what it was, as yet unread."""

    def __init__(self, vm_id: int, connection: socket.socket) -> None:
        self.vm_id = vm_id
        self.say = connection.send
        self._recv = connection.recv
        self._rest = b""
        self._upgraded = False
        self.heard: list[tuple[int, bytes]] = []
        self.greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def read(self) -> None:
        """Take what has come. Raises ConnectionError when the allocator has let it go."""
        data, moment = self._recv(PIECE), time.monotonic_ns()
        if not data:
            raise ConnectionError(f"the allocator let machine {self.vm_id} go")
        self._rest += data
        if not self._upgraded:
            if b"\r\n\r\n" not in self._rest:
                return
            self._upgraded, self._rest = True, self._rest.partition(b"\r\n\r\n")[2]
            self.say(SAY_HELLO)
        while (text := self._next()) is not None:
            self._hear(moment, text)

    def leases(self) -> dict[tuple[int, int], int]:
        """When it first had orders for which lease of its own; what was another machine's it did not hear."""
        had: dict[tuple[int, int], int] = {}
        for moment, text in self.heard:
            told = json.loads(text)
            orders = told.get("orders") or told.get("answer") or {}
            if orders.get("lease_status") == "assigned" and orders["vm_id"] == self.vm_id:
                had.setdefault((self.vm_id, orders["epoch"]), moment)
        return had

    def _hear(self, moment: int, text: bytes) -> None:
        self.heard.append((moment, text))
        if text.startswith(b'{"wake"'):
            self.say(SAY_HELLO)
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


class Listeners:
    """All of this process; `gone` ends with an error when one of them is let go."""

    def __init__(self, task: dict[str, Any]) -> None:
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._epoll = select.epoll()
        self._of: dict[int, Listener] = {}
        self.connected: list[Listener] = []
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self._epoll.fileno(), self._read)

    async def connect(self, vm_id: int) -> None:
        """Let a machine come; returns when it was greeted."""
        where, token = urlsplit(self._task["url"]), hub_token(password(self._task["seed"], vm_id))
        connection = socket.socket()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._of[connection.fileno()] = listener = Listener(vm_id, connection)
        async with self._room:
            await self._loop.sock_connect(connection, (where.hostname, where.port))
            self._epoll.register(connection, select.EPOLLIN)
            listener.say((OPEN % (where.netloc, token)).encode())
            await listener.greeted
        self.connected.append(listener)

    async def stay(self) -> None:
        """Ping as often as a real machine, each at a moment of its own, and say hello instead when that is due."""
        now = self._loop.time
        everybody, hellos, begin, said = len(self._task["numbers"]), round(HELLO_SECONDS / PING_SECONDS), now(), 0
        while True:
            due = int((now() - begin) / PING_SECONDS * everybody)
            for count in range(said, due):
                turn, place = divmod(count, everybody)
                if place < len(self.connected):
                    self.connected[place].say(SAY_PING if (turn + place) % hellos else SAY_HELLO)
            said = due
            await asyncio.sleep(PING_SECONDS / everybody)

    def _read(self) -> None:
        try:
            for descriptor, _ in self._epoll.poll(0, TURN):
                self._of[descriptor].read()
        except OSError as error:
            self._loop.remove_reader(self._epoll.fileno())
            self.gone.set_exception(error)


async def listen(task: dict[str, Any], ready: Ready, stop: asyncio.Event) -> dict[str, Any]:
    """The machines of `task` until told to stop; returns when each had orders for which lease."""
    many_files()
    listeners = Listeners(task)
    staying = asyncio.create_task(listeners.stay())
    arriving = asyncio.gather(*(listeners.connect(number) for number in task["numbers"]))
    await _first_of(arriving, listeners.gone, staying)
    ready(len(listeners.connected))
    await _first_of(asyncio.create_task(stop.wait()), listeners.gone, staying)
    had = [(*lease, moment, moment) for each in listeners.connected for lease, moment in each.leases().items()]
    return {"leases": had}


async def _first_of(*these: asyncio.Future[Any]) -> None:
    """Wait for one of them; raises what that ended with."""
    done, _ = await asyncio.wait(these, return_when=asyncio.FIRST_COMPLETED)
    for each in done:
        each.result()


if __name__ == "__main__":
    be_worker(listen)

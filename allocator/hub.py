"""The hub: machines' second way in, a WebSocket each instead of a connection to PostgreSQL each.

Who somebody is, the database says: every call shows the token's SHA-256 (allocator/sql/functions/82_hub.sql). What is
kept here is who is connected, so that whatever changes a machine wakes that machine and no other.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import structlog
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket

from allocator.batches import Batches
from allocator.calls import Calls, Hello
from allocator.errors import ServiceError
from allocator.line import Gone, Line, Said, Unreadable
from allocator.tokens import sha256
from client.protocol import HUB_CLOSED, HUB_REFUSED, NOBODYS_TOKEN, NOT_ENROLLED, parse_hints

HELLOS_AT_ONCE = 500
"""So many take a few milliseconds."""

HAND_OVER_SECONDS = 3.0
"""How long answers under way may take when the service stops."""

LEAVING_A_SECOND = 1000
"""How many machines may come to other allocators a second when this one stops."""

_BEARER = re.compile(r"Bearer ([0-9a-f]{64})")
log = structlog.get_logger()


class Hub:
    """The machines that are connected to this allocator."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._hellos: Batches[Hello, str | None] = Batches(calls.hellos, HELLOS_AT_ONCE)
        self._lines: dict[int, Line] = {}
        self._open: set[Line] = set()
        self._arriving = 0
        self._strangers: set[int] = set()
        self._gaps = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = False
        self._left = asyncio.Event()

    @property
    def machines(self) -> int:
        """How many are connected."""
        return len(self._lines)

    @asynccontextmanager
    async def attended(self) -> AsyncIterator[None]:
        """In the block, hellos are answered."""
        async with self._hellos.served():
            yield

    def heard(self, payload: str) -> None:
        """A notification: wake the machines that it hints at. One that cannot be read is somebody's, and wakes none."""
        if self._lines or self._arriving:
            for hint in parse_hints(payload) or ():
                self._wake(hint.id)

    def missed(self) -> None:
        """Notifications may have been missed: every machine is to look."""
        self._gaps += 1
        for vm_id in self._lines:
            self._wake(vm_id)

    async def attend(self, socket: WebSocket) -> None:
        """Serve one connection until it ends."""
        token = _BEARER.fullmatch(socket.headers.get("authorization", ""))
        if self._over or token is None or "origin" in socket.headers:  # which only browsers send
            words, status = ("Another allocator will answer.", 503) if self._over else ("Show a machine's token.", 401)
            return await socket.send_denial_response(PlainTextResponse(words, status))
        await socket.accept()
        line = Line(socket, sha256(token[1]))
        self._open.add(line)
        try:
            with suppress(Gone):
                await self._converse(line)
        finally:
            self._forget(line)

    async def hand_over(self) -> None:
        """Let every machine go to another allocator: at once, or when its answer has come."""
        self._over = True
        await asyncio.gather(*(self._let_go(line) for line in list(self._open) if not line.busy))
        with suppress(TimeoutError):
            async with asyncio.timeout(HAND_OVER_SECONDS):
                while self._open:
                    self._left.clear()
                    await self._left.wait()

    async def _converse(self, line: Line) -> None:
        while not self._over:
            try:
                answer = await self._answer(line, await line.hear())
            except Unreadable:
                return await line.leave(HUB_REFUSED, "that was no verb of a machine's")
            await line.say(answer)
            if line.refused:
                return await line.leave(HUB_REFUSED, "that token is no machine's")
        await self._let_go(line)

    async def _answer(self, line: Line, said: Said) -> str:
        """The answer to a verb, as JSON. Nobody is anybody before their first hello was answered."""
        try:
            if said.verb == "hello":
                return await self._greet(line, said)
            if line.vm_id is None:
                raise Unreadable
            return await self._calls.call(line.token_sha256, said.verb, said.text)
        except ServiceError as error:
            return json.dumps({"unavailable": error.title})

    async def _greet(self, line: Line, said: Said) -> str:
        """Answer a hello, and know from then on whose line it is."""
        hello = Hello(line.token_sha256, *said.memory)
        line.looks()
        with self._waking_strangers(line):
            answer = await self._hellos.ask(hello) or await self._calls.call(line.token_sha256, "hello", said.text)
            heard = json.loads(answer)
            line.refused = heard.get("refused") in (NOT_ENROLLED, NOBODYS_TOKEN)
            if orders := heard.get("answer"):
                self._note(line, orders["vm_id"], orders["period_seconds"])
        return answer

    @contextmanager
    def _waking_strangers(self, line: Line) -> Iterator[None]:
        """Whose line it is, is known when its first hello was answered: what was hinted at meanwhile is told then."""
        arrives, gaps = line.vm_id is None, self._gaps
        self._arriving += arrives
        try:
            yield
            if arrives and line.vm_id is not None and (line.vm_id in self._strangers or gaps != self._gaps):
                self._wake(line.vm_id)
        finally:
            self._arriving -= arrives
            if not self._arriving:
                self._strangers.clear()

    def _note(self, line: Line, vm_id: int, period_seconds: float) -> None:
        """A machine that comes again has lost its older connection, and that may not know it yet."""
        line.belongs_to(vm_id, period_seconds)
        older = self._lines.get(vm_id)
        self._lines[vm_id] = line
        if older is not None and older is not line:
            self._begin(older.leave(HUB_CLOSED))

    def _wake(self, vm_id: int) -> None:
        if self._arriving:
            self._strangers.add(vm_id)
        line = self._lines.get(vm_id)
        if line is not None and line.is_to_wake():
            self._begin(line.wake())

    def _begin(self, telling: Coroutine[None, None, None]) -> None:
        """Tell somebody something while the others go on."""
        task = asyncio.create_task(_if_there(telling))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _let_go(self, line: Line) -> None:
        await _if_there(line.leave(HUB_CLOSED, f"{len(self._lines) / LEAVING_A_SECOND:.2f}"))

    def _forget(self, line: Line) -> None:
        self._open.discard(line)
        if line.vm_id is not None and self._lines.get(line.vm_id) is line:
            del self._lines[line.vm_id]
        self._left.set()


async def _if_there(telling: Coroutine[None, None, None]) -> None:
    with suppress(Gone):
        await telling

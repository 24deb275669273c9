"""The hub: machines' second way in, a WebSocket each instead of a connection to PostgreSQL each.

Who somebody is, the database says: every call shows the token's SHA-256 (allocator/sql/functions/82_hub.sql).
"""

import asyncio
import json
import re
from contextlib import suppress
from typing import Any

import structlog
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket

from allocator.calls import Calls
from allocator.errors import ServiceError
from allocator.line import Gone, Line
from allocator.said import Said, Unreadable
from allocator.telling import Telling, if_there
from allocator.tokens import sha256
from client.protocol import HUB_CLOSED, HUB_REFUSED, NOBODYS_TOKEN, NOT_ENROLLED

HAND_OVER_SECONDS = 3.0
"""How long answers under way may take when the service stops."""

LEAVING_A_SECOND = 1250
"""How many machines may come to other allocators a second when this one stops; each takes 0.4 ms there."""

AGAIN_SECONDS = "10"
"""Within which a machine may come again whose place was taken: by itself over another line, or by a copy of it."""

QUIET = 5000
"""How many may be connected without having said a word; who comes then takes the place of the first of them."""

_BEARER = re.compile(r"Bearer ([0-9a-f]{64})")
log = structlog.get_logger()


class Hub:
    """The machines that are connected to this allocator."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self.telling = Telling()
        self._open: set[Line] = set()
        self._quiet: dict[Line, None] = {}
        self._over = False
        self._left = asyncio.Event()

    @property
    def machines(self) -> int:
        """How many are connected."""
        return len(self.telling.lines)

    async def attend(self, socket: WebSocket) -> None:
        """Serve one connection until it ends."""
        token = _BEARER.fullmatch(socket.headers.get("authorization", ""))
        if self._over or token is None or "origin" in socket.headers:  # which only browsers send
            words, status = ("Another allocator will answer.", 503) if self._over else ("Show a machine's token.", 401)
            return await socket.send_denial_response(PlainTextResponse(words, status))
        await socket.accept()
        line = Line(socket, sha256(token[1]))
        self._let_in(line)
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

    def _let_in(self, line: Line) -> None:
        self._open.add(line)
        self._quiet[line] = None
        if len(self._quiet) > QUIET:
            first = next(iter(self._quiet))
            del self._quiet[first]
            self.telling.begin(first.leave(HUB_REFUSED, "say hello at once"))

    async def _converse(self, line: Line) -> None:
        while not self._over:
            try:
                said = await line.hear()
                self._quiet.pop(line, None)
                answer = await self._answer(line, said)
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
            if said.verb == "cleaned":  # it need not be told so; what else comes of it is news
                line.told = said.epoch, "available"
            answer = await self._calls.answer(line.token_sha256, said)
        except ServiceError as error:
            return json.dumps({"unavailable": error.title})
        self._heed(line, said, json.loads(answer))
        return answer

    async def _greet(self, line: Line, said: Said) -> str:
        """Answer a hello, and know from then on whose line it is."""
        line.looks()
        with self.telling.arriving(line):
            answer = await self._calls.answer(line.token_sha256, said)
            self._heed(line, said, json.loads(answer))
        return answer

    def _heed(self, line: Line, said: Said, heard: dict[str, Any]) -> None:
        """What an answer says of the machine."""
        line.refused = heard.get("refused") in (NOT_ENROLLED, NOBODYS_TOKEN)
        answer = heard.get("answer")
        if said.verb == "hello" and answer:
            line.belongs_to(answer["vm_id"], answer["period_seconds"])
            line.told = answer["epoch"], answer["status"]
            if older := self.telling.enter(line, answer["vm_id"]):
                self.telling.begin(older.leave(HUB_CLOSED, AGAIN_SECONDS))

    async def _let_go(self, line: Line) -> None:
        await if_there(line.leave(HUB_CLOSED, f"{self.machines / LEAVING_A_SECOND:.2f}"))

    def _forget(self, line: Line) -> None:
        self._open.discard(line)
        self._quiet.pop(line, None)
        self.telling.leave(line)
        self._left.set()

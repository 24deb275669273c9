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
from allocator.link import Gone, Link, if_there
from allocator.said import Said, Unreadable
from allocator.tasks import Spawned
from allocator.telling import Telling
from allocator.tokens import sha256
from client.protocol import HUB_CLOSED, HUB_REFUSED, NOBODYS_TOKEN, NOT_ENROLLED

HAND_OVER_SECONDS = 3.0
"""How long answers under way may take when the service stops."""

LEAVING_A_SECOND = 1250
"""How many machines may come to other allocators a second when this one stops; each takes 0.4 ms there."""

AGAIN_SECONDS = "10"
"""Within which a machine may come again whose place was taken: by itself over another link, or by a copy of it."""

QUIET = 5000
"""How many may be connected without having said a word; who comes then takes the place of the first of them."""

_BEARER = re.compile(r"Bearer ([0-9a-f]{64})")
log = structlog.get_logger()


class Hub:
    """The machines that are connected to this allocator."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self.telling = Telling()
        self._open: set[Link] = set()
        self._quiet: dict[Link, None] = {}
        self._over = False
        self._left = asyncio.Event()
        self._spawned = Spawned()

    @property
    def machines(self) -> int:
        """How many are connected."""
        return self.telling.machines

    async def attend(self, socket: WebSocket) -> None:
        """Serve one connection until it ends."""
        token = _BEARER.fullmatch(socket.headers.get("authorization", ""))
        if self._over or token is None or "origin" in socket.headers:  # which only browsers send
            words, status = ("Another allocator will answer.", 503) if self._over else ("Show a machine's token.", 401)
            return await socket.send_denial_response(PlainTextResponse(words, status))
        await socket.accept()
        link = Link(socket, sha256(token[1]))
        self._let_in(link)
        try:
            with suppress(Gone):
                await self._converse(link)
        finally:
            self._forget(link)

    async def hand_over(self) -> None:
        """Let every machine go to another allocator: at once, or when its answer has come."""
        self._over = True
        await asyncio.gather(*(self._let_go(link) for link in list(self._open) if not link.busy))
        with suppress(TimeoutError):
            async with asyncio.timeout(HAND_OVER_SECONDS):
                while self._open:
                    self._left.clear()
                    await self._left.wait()

    def _let_in(self, link: Link) -> None:
        self._open.add(link)
        self._quiet[link] = None
        if len(self._quiet) > QUIET:
            first = next(iter(self._quiet))
            del self._quiet[first]
            self._spawned.spawn(if_there(first.leave(HUB_REFUSED, "say hello at once")))

    async def _converse(self, link: Link) -> None:
        while not self._over:
            try:
                said = await link.hear()
                self._quiet.pop(link, None)
                answer = await self._answer(link, said)
            except Unreadable:
                return await link.leave(HUB_REFUSED, "that was no verb of a machine's")
            await link.say(answer)
            if _is_refusal(answer):
                return await link.leave(HUB_REFUSED, "that token is no machine's")
        await self._let_go(link)

    async def _answer(self, link: Link, said: Said) -> str:
        """The answer to a verb, as JSON. Nobody is anybody before their first hello was answered."""
        try:
            if said.verb == "hello":
                return await self._greet(link, said)
            if link.vm_id is None:
                raise Unreadable
            if said.verb == "cleaned":  # it need not be told so; what else comes of it is news
                link.learns((said.epoch, "available"))
            return await self._calls.answer(link.token_sha256, said)
        except ServiceError as error:
            return json.dumps({"unavailable": error.title})

    async def _greet(self, link: Link, said: Said) -> str:
        """Answer a hello, and know from then on whose link it is."""
        if link.looks():
            await self._calls.gathered()
        with self.telling.arriving(link):
            answer = await self._calls.answer(link.token_sha256, said)
            if orders := json.loads(answer).get("answer"):
                self._greeted(link, orders)
        return answer

    def _greeted(self, link: Link, orders: dict[str, Any]) -> None:
        link.belongs_to(orders["vm_id"], orders["period_seconds"])
        link.learns((orders["epoch"], orders["status"]))
        if older := self.telling.enter(link, orders["vm_id"]):
            self._spawned.spawn(if_there(older.leave(HUB_CLOSED, AGAIN_SECONDS)))

    async def _let_go(self, link: Link) -> None:
        await if_there(link.leave(HUB_CLOSED, f"{self.machines / LEAVING_A_SECOND:.2f}"))

    def _forget(self, link: Link) -> None:
        self._open.discard(link)
        self._quiet.pop(link, None)
        self.telling.leave(link)
        self._left.set()


def _is_refusal(answer: str) -> bool:
    """Whether it says that the token is no machine's that is in service."""
    return '"refused"' in answer and json.loads(answer).get("refused") in (NOT_ENROLLED, NOBODYS_TOKEN)

"""One machine's WebSocket: what it may say and how often, and how it is let go."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress

from starlette.websockets import WebSocket, WebSocketDisconnect

from allocator.said import Said
from client.protocol import HUB_CLOSED

FIRST_WORD_SECONDS = 10.0
"""In which whoever connects must have said hello."""

OVERDUE_SECONDS = 15.0
"""How much later than in twice its period a machine may say its next hello."""

SEND_SECONDS = 10.0
"""How long somebody may take to read what is sent."""

VERBS_A_SECOND = 10.0
BURST = 20
"""How many verbs one machine may say at once; it then waits its turn. A lease takes five."""

WRITE = "lablink.write"
"""The extension of a WebSocket's scope whose `at_once` writes a text, unless that takes longer; says whether it did."""

WAKE = json.dumps({"wake": True})

News = tuple[int, str]
"""An epoch and a status."""


class Gone(Exception):
    """Nobody is at the other end, or nobody who reads."""


class Link:
    """The connection of whoever shows a token; of a machine, once its first hello was answered.

    It is heard when it has read its last answer, so whoever does not read cannot ask.
    """

    __slots__ = (
        *("_due", "_left", "_looked_at", "_period", "_socket", "_told", "_unsent", "_write"),
        *("busy", "is_woken", "token_sha256", "vm_id"),
    )

    def __init__(self, socket: WebSocket, token_sha256: bytes) -> None:
        self._socket = socket
        self._write = socket.scope.get("extensions", {}).get(WRITE, {}).get("at_once", _not_at_once)
        self._unsent = 0
        self.token_sha256 = token_sha256
        self.vm_id: int | None = None
        self.busy = False
        """While it waits for an answer."""
        self._told: News | None = None
        self.is_woken = False
        """Whether it is to look, and has not come yet."""
        self._left = False
        self._period = math.inf
        self._looked_at = 0.0
        self._due = 0.0

    def belongs_to(self, vm_id: int, period_seconds: float) -> None:
        """It is this machine's, which will say hello again in that time."""
        self.vm_id, self._period = vm_id, period_seconds

    def knows(self, news: News) -> bool:
        """Whether it was told that last, or has said it."""
        return self._told == news

    def learns(self, news: News) -> None:
        """It is being told that, or says it: it is no news any more."""
        self._told = news

    async def hear(self) -> Said:
        """The next verb. Raises Unreadable, and Gone also of who is silent too long."""
        if pause := self.pause():
            await asyncio.sleep(pause)
        async with _within(FIRST_WORD_SECONDS if self.vm_id is None else 2 * self._period + OVERDUE_SECONDS):
            message = await self._socket.receive()
        if message["type"] != "websocket.receive":
            raise Gone
        self.busy = True
        return Said.of(message.get("text"))

    async def say(self, answer: str) -> None:
        """Answer it. Raises Gone, also of who does not read."""
        if sending := self.tell(answer):
            await sending
        self.busy = False

    def is_to_wake(self) -> bool:
        """Whether it is to be woken now: not again before it has come to look."""
        due, self.is_woken = not (self.is_woken or self._left), True
        return due

    def tell(self, news: str) -> Coroutine[None, None, None] | None:
        """Tell it something at once; or returns what tells it, where that takes longer. That raises Gone."""
        if not self._unsent and self._write(news):
            return None
        self._unsent += 1
        return self._send(news)

    async def _send(self, news: str) -> None:
        try:
            async with _within(SEND_SECONDS):
                await self._socket.send_text(news)
        finally:
            self._unsent -= 1

    def looks(self) -> bool:
        """It is about to be told what is; what changes from now on is news again.

        Returns whether it only wants to show that it is alive: it was not woken, and comes when it was to.
        """
        now, was_woken = asyncio.get_running_loop().time(), self.is_woken
        is_due = now - self._looked_at > self._period / 2
        self.is_woken, self._looked_at = False, now
        return is_due and not was_woken

    async def leave(self, code: int = HUB_CLOSED, reason: str = "") -> None:
        """Close it, once. The machine comes again by itself. Raises Gone."""
        if not self._left:
            self._left = True
            async with _within(SEND_SECONDS):
                await self._socket.close(code, reason)

    def pause(self) -> float:
        """Seconds until it may speak once more."""
        now = asyncio.get_running_loop().time()
        self._due = max(self._due, now - BURST / VERBS_A_SECOND) + 1 / VERBS_A_SECOND
        return max(0.0, self._due - now)


async def if_there(telling: Coroutine[None, None, None]) -> None:
    """Tell it, if somebody is there who reads."""
    with suppress(Gone):
        await telling


def _not_at_once(_text: str) -> bool:
    """For a server that has no such extension."""
    return False


@asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    """A socket that is closed, or not read from, raises Gone. Starlette says RuntimeError for one that we closed."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except (WebSocketDisconnect, RuntimeError, OSError, TimeoutError) as error:
        raise Gone from error

"""A WebSocket to an allocator: how it is opened, what is said over it in turn, and how its end is noticed."""

import asyncio
import json
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException

from client.network import is_loopback, keep_alive
from client.protocol import HUB_CLOSED, HUB_MESSAGE_BYTES, HUB_PATH
from client.settings import SettingsError

CONNECT_LIMIT_SECONDS = 10.0
VERB_LIMIT_SECONDS = 10.0

PING_SECONDS = 3.0
PONG_SECONDS = 3.4
CLOSE_SECONDS = 0.5
"""So a link that is dead without saying so is given up within seven seconds: it is closed first, and that waits too."""

MOST_SPREAD_SECONDS = 30.0

NO_HUB = "no hub answers there ({}): the allocator is older, or what is in front of it does not know WebSockets"

LOST = (WebSocketException, OSError, TimeoutError, EOFError)
"""What a link that is broken, or cannot be made, ends with."""


class InsecureHub(SettingsError):
    """The hub would be reached in a way that others can read or imitate."""


class Link:
    """An open WebSocket, and the task that reads it.

    `hear` is told what comes without being asked for, and None at the end.
    """

    def __init__(self, socket: ClientConnection, hear: Callable[[dict[str, Any] | None], None]) -> None:
        self._socket = socket
        self._hear = hear
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read())

    @property
    def ended(self) -> bool:
        """Whether nothing will come any more."""
        return self._reading.done()

    @property
    def spread(self) -> float | None:
        """Over how many seconds its machines may come again, if the allocator has said that when it closed this."""
        if self._socket.close_code != HUB_CLOSED:
            return None
        with suppress(ValueError):
            return min(MOST_SPREAD_SECONDS, max(0.0, float(self._socket.close_reason or "0")))
        return None

    async def ask(self, words: str) -> dict[str, Any]:
        """Say something and wait for its answer. Raises what a broken link ends with."""
        async with asyncio.timeout(VERB_LIMIT_SECONDS):
            await self._socket.send(words)
            answer = asyncio.create_task(self._answers.get())
            try:
                await asyncio.wait({answer, self._reading}, return_when=asyncio.FIRST_COMPLETED)
                if answer.done():
                    return answer.result()
            finally:
                answer.cancel()
        raise EOFError("the allocator closed the connection")

    async def close(self) -> None:
        """End it politely, within half a second."""
        await self._socket.close()
        self._reading.cancel()
        await asyncio.wait([self._reading])

    def abort(self) -> None:
        """End it at once."""
        self._reading.cancel()
        self._socket.transport.abort()

    async def _read(self) -> None:
        try:
            async for message in self._socket:
                told = json.loads(message)
                if not isinstance(told, dict):
                    return
                if "wake" in told or "orders" in told:
                    self._hear(told)
                else:
                    self._answers.put_nowait(told)
        except (ConnectionClosed, ValueError):
            pass
        finally:
            self._socket.transport.abort()
            self._hear(None)


async def dial(url: str, tls: ssl.SSLContext | None, token: str) -> ClientConnection:
    """A WebSocket of the machine that has this token. Raises one of LOST."""
    socket = await connect(
        url,
        additional_headers={"Authorization": f"Bearer {token}"},
        ssl=tls,
        compression=None,
        open_timeout=CONNECT_LIMIT_SECONDS,
        ping_interval=PING_SECONDS,
        ping_timeout=PONG_SECONDS,
        close_timeout=CLOSE_SECONDS,
        max_size=HUB_MESSAGE_BYTES,
        proxy=None,
    )
    keep_alive(socket.transport.get_extra_info("socket"))
    return socket


def told_to_wait(error: BaseException) -> float | None:
    """In how many seconds an allocator that has no room now will have some, if it said that."""
    if isinstance(error, InvalidStatus):
        with suppress(ValueError, LookupError):
            return min(MOST_SPREAD_SECONDS, max(0.0, float(error.response.headers["Retry-After"])))
    return None


def socket_url(allocator_url: str) -> str:
    """Where an allocator takes WebSockets. Raises InsecureHub where others could read what is said there."""
    parts = urlsplit(allocator_url)
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        return f"ws{allocator_url.removeprefix('http').rstrip('/')}{HUB_PATH}"
    raise InsecureHub(f"The hub is only spoken to over https, or on this machine itself, but it is at {allocator_url}.")


def words(error: BaseException) -> str:
    """What ended a link, in words."""
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        return NO_HUB.format(status) if status in (403, 404) else f"the allocator answers {status}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of the allocator cannot be trusted ({error.verify_message.rstrip('.')})"
    if isinstance(error, InvalidHandshake):
        return "what answers there is no allocator"
    return str(error).splitlines()[0] if str(error) else type(error).__name__

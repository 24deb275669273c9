"""HTTP as uvicorn speaks it with httptools, which by itself reads a head of any length and waits for it for ever."""

import asyncio
from collections.abc import Iterator
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from allocator.doorman import Doorman

HEAD_BYTES = 65_536
"""How long a request may be before its body begins; a browser's cookies for this service are under 1,000."""

PIECE = 4096
"""How much of what came is read at once: nobody waits for the rest of what somebody sends without end."""

AHEAD = 16
"""How many requests may come before those ahead of them were answered; browsers and proxies send none."""

HEAD_SECONDS = 30.0
"""In which a request must have come as far as its body, from when its connection was opened or its first byte came."""

FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: %d\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def pieces(data: bytes) -> Iterator[bytes]:
    """What came, bit by bit."""
    return (data[start : start + PIECE] for start in range(0, len(data), PIECE))


class Http1(HttpToolsProtocol):
    """One connection. Who wants to speak over a WebSocket is sent to the doorman, and says nothing until let in."""

    def __init__(self, doorman: Doorman, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._doorman = doorman
        self._in_line = False
        self._head_bytes = 0
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody opened it."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed."""
        self._wait_no_longer()
        self._doorman.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Something came. Who stands in line has nothing to say yet."""
        for piece in pieces(data):
            if self._in_line:
                self.transport.abort()
            if self.transport.is_closing() or self.transport.get_protocol() is not self:
                return
            self._read(piece)

    def _read(self, piece: bytes) -> None:
        """What is not (yet) the whole of a head must not be too long, nor too many requests ahead of their turn."""
        self._head_bytes += len(piece)
        super().data_received(piece)
        if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The request's head is too long.")
        elif len(self.pipeline) > AHEAD:
            self.transport.abort()

    def handle_websocket_upgrade(self) -> None:
        """It is in line, or told to come later."""
        seconds = self._doorman.ask(self)
        self._in_line = seconds is None
        if seconds is not None:
            self.transport.write(FULL % seconds)
            self.transport.close()

    def come_in(self) -> None:
        """It is its turn."""
        if not self.transport.is_closing():
            super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        """Its head is there."""
        self._wait_no_longer()
        self._head_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of its body is there."""
        self._head_bytes = 0
        super().on_body(body)

    def _wait(self) -> None:
        self._wait_no_longer()
        self._late = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _wait_no_longer(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

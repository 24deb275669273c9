"""Machines' WebSockets as uvicorn keeps them, but not for ever: who is silent is gone.

Machines ping every three seconds. uvicorn would answer the last of them and wait without end; a proxy in between keeps
a connection open to us for a machine that is none any more, so the kernel alone would not notice.
"""

import asyncio
import logging
from asyncio.transports import BaseTransport
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

SILENCE_SECONDS = 7.0
"""How long a WebSocket may bring nothing, not even a ping."""

PINGS_A_SECOND = 2.0
PINGS = 20
"""How many pings one may send at once. Each is answered, which nobody asked the hub about."""


class MachineSocket(WebSocketsSansIOProtocol):
    """A WebSocket that ends when nothing comes any more. That one begins or ends is no news for the log."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.logger = logging.getLogger("uvicorn.machines")
        self.conn.logger = logging.getLogger("uvicorn.machines.words")
        self._heard_at = 0.0
        self._pings_due = 0.0
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self._heard_at = self.loop.time()
        self._watch = self.loop.call_later(SILENCE_SECONDS, self._look)

    def data_received(self, data: bytes) -> None:
        self._heard_at = self.loop.time()
        super().data_received(data)

    def handle_ping(self) -> None:
        now = self.loop.time()
        self._pings_due = max(self._pings_due, now - PINGS / PINGS_A_SECOND) + 1 / PINGS_A_SECOND
        if self._pings_due > now:
            self.transport.abort()
        else:
            super().handle_ping()

    def pause_writing(self) -> None:
        """It does not read: then it is not read from either, so it becomes silent."""
        super().pause_writing()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.read_paused:
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        silent = self.loop.time() - self._heard_at
        if silent >= SILENCE_SECONDS:
            self.transport.abort()
        else:
            self._watch = self.loop.call_later(SILENCE_SECONDS - silent, self._look)

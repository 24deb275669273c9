"""Machines' WebSockets as uvicorn keeps them, but not for ever: who is silent is gone.

Machines ping every three seconds. uvicorn would answer the last of them and wait without end; a proxy in between keeps
a connection open to us for a machine that is none any more, so the kernel alone would not notice.
"""

import asyncio
import logging
import struct
from asyncio.transports import BaseTransport
from http import HTTPStatus
from itertools import cycle
from operator import xor
from types import GeneratorType
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.streams import StreamReader

from allocator.http1 import pieces
from allocator.link import WRITE

SILENCE_SECONDS = 7.0
"""How long a WebSocket may bring nothing, not even a ping."""

FRAMES = 500
"""How many frames it may bring in that time: each takes a moment, and a machine needs less than a hundred."""

TEXT, PING, PONG = 0x81, 0x89, 0x8A
MASKED = 0x80
HEAD, LONGEST = 6, 125
"""Of a ping as machines send it: its bytes before the payload, and how many that may have."""

SHORT = 4096
"""How long a message may be that is kept while more is read; nearly all are."""


class MachineSocket(WebSocketsSansIOProtocol):
    """A WebSocket that ends when nothing comes any more. That one begins or ends is no news for the log."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.logger = logging.getLogger("uvicorn.machines")
        self.conn.logger = logging.getLogger("uvicorn.machines.words")
        self._heard_at = 0.0
        self._frames = 0
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self._heard_at = self.loop.time()
        self._watch = self.loop.call_later(SILENCE_SECONDS, self._look)

    def handle_connect(self, event: Request) -> None:
        """Who serves it may write without a task, a timer and three layers between: that halves what it costs."""
        super().handle_connect(event)
        if self.response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            self.scope["extensions"][WRITE] = {"at_once": self.write_at_once}

    def write_at_once(self, text: str) -> bool:
        """Send a text; False, and nothing is sent, while it does not read what came before, or when it is closed."""
        if not self.handshake_complete or self.close_sent or self.transport.is_closing() or not self.writable.is_set():
            return False
        self.transport.write(text_frame(text))
        return True

    def data_received(self, data: bytes) -> None:
        self._heard_at = self.loop.time()
        if is_ping(data) and self._begins_a_frame():
            return self._answer_ping(data)
        for piece in pieces(data):
            if not self.transport.is_closing():
                super().data_received(piece)

    def handle_events(self) -> None:
        """Pings are answered and parts of a message kept, whether or not anybody reads: that must end."""
        self._frames += len(self.conn.events)
        if self._frames > FRAMES:
            self.transport.abort()
        else:
            super().handle_events()

    def send_receive_event_to_app(self) -> None:
        """Who is listened to is read on: only a long message, or a second that nobody has taken yet, puts that off."""
        goes_on = self.queue.empty() and not self.read_paused and sum(map(len, self.frames)) <= SHORT
        self.read_paused |= goes_on
        super().send_receive_event_to_app()
        self.read_paused &= not goes_on

    def _begins_a_frame(self) -> bool:
        """Whether what comes now is no part of an earlier frame: the library's reader asks whether anything comes."""
        reads: object = self.conn.parser
        while isinstance(reads, GeneratorType) and reads.gi_yieldfrom is not None:
            reads = reads.gi_yieldfrom
        return isinstance(reads, GeneratorType) and reads.gi_code is StreamReader.at_eof.__code__

    def _answer_ping(self, ping: bytes) -> None:
        """What the library would do, in less time: of what idle machines say, nearly all are pings."""
        self._frames += 1
        if self._frames > FRAMES:
            self.transport.abort()
        else:
            self.transport.write(pong(ping))

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
        self._frames = 0
        silent = self.loop.time() - self._heard_at
        if silent >= SILENCE_SECONDS:
            self.transport.abort()
        else:
            self._watch = self.loop.call_later(SILENCE_SECONDS - silent, self._look)


def text_frame(text: str) -> bytes:
    """A text as the server sends it, whole (RFC 6455, 5.2)."""
    payload = text.encode()
    size = len(payload)
    if size <= LONGEST:
        return bytes((TEXT, size)) + payload
    head = struct.pack("!BBH", TEXT, 126, size) if size < 1 << 16 else struct.pack("!BBQ", TEXT, 127, size)
    return head + payload


def is_ping(data: bytes) -> bool:
    """Whether that is one whole ping of a machine's, if a frame begins there."""
    size = len(data) - HEAD
    return 0 <= size <= LONGEST and data[0] == PING and data[1] == MASKED | size


def pong(ping: bytes) -> bytes:
    """The answer to a ping, which is what it said (RFC 6455, 5.5.3)."""
    payload = bytes(map(xor, ping[HEAD:], cycle(ping[HEAD - 4 : HEAD])))
    return bytes((PONG, len(payload))) + payload

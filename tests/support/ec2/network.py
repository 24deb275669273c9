"""An instance's network: a namespace of its own, out of which lead only the ways that a test opens.

A socket belongs to the namespace in which it was made. What listens in an instance's namespace is served from here.
"""

import asyncio
import ctypes
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Self

from tests.support.certificates import Authority

_NEWNET = 0x40000000  # CLONE_NEWNET, linux/sched.h
_LIMIT_SECONDS = 60.0


@contextmanager
def inside(pid: int) -> Iterator[None]:
    """This thread is in that process's network for the time of the block."""
    with open("/proc/thread-self/ns/net") as ours, open(f"/proc/{pid}/ns/net") as theirs:
        _enter(theirs.fileno())
        try:
            yield
        finally:
            _enter(ours.fileno())


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@dataclass(frozen=True, slots=True)
class Way:
    """What an instance finds at an address: a port of this machine's loopback, where `name` is given behind TLS."""

    at: tuple[str, int]
    to: int
    tls: ssl.SSLContext | None = None

    @classmethod
    def private(cls, name: str, address: str, to: int, authority: Authority) -> Self:
        """As a proxy that ends TLS for a service: it has a certificate of its name."""
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        chain = authority.file.with_name(f"{name}.chain.pem")
        chain.write_bytes(b"".join(authority.issue(name)))
        tls.load_cert_chain(chain)
        return cls((address, 443), to, tls)


@dataclass(slots=True)
class Carrier:
    """Carries what comes in on all ways of all instances, in a thread that is in this machine's network."""

    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    @contextmanager
    def carrying(self) -> Iterator[Self]:
        """The carrier, at work for the time of the block."""
        thread = threading.Thread(target=self._loop.run_forever)
        thread.start()
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(_end_all(), self._loop).result(_LIMIT_SECONDS)
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    @contextmanager
    def open(self, pid: int, way: Way) -> Iterator[None]:
        """A way out of the network of that process."""
        with inside(pid):
            listener = socket.create_server(way.at)

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                await _carry(reader, writer, way.to)
            writer.transport.abort()

        opening = asyncio.start_server(accept, sock=listener, ssl=way.tls)
        server = asyncio.run_coroutine_threadsafe(opening, self._loop).result(_LIMIT_SECONDS)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(server.close)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """Carry one connection until one side ends it."""
    there, back = await asyncio.open_connection("127.0.0.1", port)
    pumps = [asyncio.create_task(_pump(reader, back)), asyncio.create_task(_pump(there, writer))]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        with suppress(OSError):
            await writer.drain()
        back.transport.abort()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while piece := await source.read(65_536):
        sink.write(piece)
        await sink.drain()


async def _end_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)

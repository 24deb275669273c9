"""Pages of people who wait, as browsers keep them open: each a connection of its own, with as little as that takes."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.bench.process import becomes, many_files
from tests.bench.workers import Ready, be_worker

AT_ONCE = 100
OPEN_SECONDS = 50.0
NEWS, OVER = b"event: lease\n", b"event: over\n"
"""What comes before each piece that shows the lease, and when there will be no more."""


@dataclass(slots=True)
class Seen:
    """What all pages met with: how many are open and show their lease, what they were sent, how many were cut off."""

    open: int = 0
    news: int = 0
    bytes: int = 0
    cut: int = 0


class _Page(asyncio.Protocol):
    """One page."""

    def __init__(self, request: bytes, seen: Seen) -> None:
        self._request, self._seen = request, seen
        self._open = self._over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        news = data.count(NEWS)
        self._seen.news += news
        self._seen.bytes += len(data)
        self._over = self._over or OVER in data
        if news and not self._open:
            self._open = True
            self._seen.open += 1

    def connection_lost(self, _error: Exception | None) -> None:
        self._seen.cut += not self._over


def _request(port: int, lease: str, token: str) -> bytes:
    """What a browser asks to follow its lease."""
    head = f"GET /leases/{lease}/stream HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n\r\n"
    return head.encode()


async def browse(task: dict[str, Any], ready: Ready, stop: asyncio.Event) -> dict[str, float]:
    """Open the pages of `task`, a lease and its token each. Says how many seconds it took until all were shown."""
    many_files()
    seen, began = Seen(), time.monotonic()
    for begin in range(0, len(task["pages"]), AT_ONCE):
        await _open(task["port"], task["pages"][begin : begin + AT_ONCE], seen)
    ready({"open": seen.open, "seconds": time.monotonic() - began})
    await stop.wait()
    return {"news": seen.news, "bytes": seen.bytes, "cut": seen.cut, "seconds": time.monotonic() - began}


async def _open(port: int, leases: Sequence[tuple[str, str]], seen: Seen) -> None:
    """Open these at once; returns when each shows its lease."""
    loop, wanted = asyncio.get_running_loop(), seen.open + len(leases)
    pages = [partial(_Page, _request(port, lease, token), seen) for lease, token in leases]
    await asyncio.gather(*(loop.create_connection(page, "127.0.0.1", port) for page in pages))
    await becomes(lambda: seen.open >= wanted, OPEN_SECONDS)


if __name__ == "__main__":
    be_worker(browse)

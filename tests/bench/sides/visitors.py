"""People who send a form and wait for the answer, each over a connection of their own, with as little as that takes."""

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.bench.load import at_moments
from tests.bench.workers import Ready, be_worker

LIMIT_SECONDS = 30.0
REFUSED = 0
"""Instead of a status, where no answer came."""

Visit = tuple[int, int, int]
"""The status of the answer, how many nanoseconds it took, and how many the person came late."""


class _Form(asyncio.Protocol):
    """One request; `status` is done when the whole head of the answer is there."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._answer = b""
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if b"\r\n\r\n" in self._answer and not self.status.done():
            self.status.set_result(int(self._answer.split(b" ", 2)[1]))

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.status.done():
            self.status.set_result(REFUSED)


@dataclass(frozen=True, slots=True)
class Address:
    """Where people go, and what they send: `body` has a place for the number of the person."""

    port: int
    content_type: str
    body: str

    def request(self, number: int) -> bytes:
        """The whole request of that person."""
        body = self.body.replace("NUMBER", str(number)).encode()
        head = (
            f"POST /api/request_vm HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Type: {self.content_type}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + body


async def visit(task: dict[str, Any], ready: Ready, stop: asyncio.Event) -> None:
    """Everybody of `task`: for each phase, the moments at which people come. After each, says what they met with."""
    address, first = Address(**task["address"]), 0
    for moments in task["phases"]:
        ready(await at_moments(moments, partial(_visit, address, first)))
        first += len(moments)
    await stop.wait()


async def _visit(address: Address, first: int, number: int, late: int) -> Visit:
    began = time.perf_counter_ns()
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            transport, form = await asyncio.get_running_loop().create_connection(
                lambda: _Form(address.request(first + number)), "127.0.0.1", address.port
            )
            status = await form.status
    except (OSError, TimeoutError):
        return REFUSED, time.perf_counter_ns() - began, late
    took = time.perf_counter_ns() - began
    transport.close()
    return status, took, late


if __name__ == "__main__":
    be_worker(visit)

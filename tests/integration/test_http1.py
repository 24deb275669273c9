"""What comes before anything is known of a request: heads that are too long, or never there."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from urllib.parse import urlsplit

import httpx
import pytest

from allocator.http1 import AHEAD, HEAD_BYTES, Http1
from tests.support import LIMIT_SECONDS
from tests.support.machine import reached
from tests.support.service import RunningService

BEGUN = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n"
PIECE = 8192
MINUTE = 60.0
TOO_MUCH = 32 * 1024 * 1024
"""More than the buffers of the two sockets hold."""


def one_long_header() -> Iterator[bytes]:
    yield BEGUN + b"X: "
    while True:
        yield b"x" * PIECE


def many_headers() -> Iterator[bytes]:
    yield BEGUN
    for number in count():
        yield b"x-%d: %s\r\n" % (number, b"x" * PIECE)


def a_long_address() -> Iterator[bytes]:
    yield b"GET /"
    while True:
        yield b"x" * PIECE


def nothing_but_line_ends() -> Iterator[bytes]:
    while True:
        yield b"\r\n" * (PIECE // 2)


def what_follows_a_request() -> Iterator[bytes]:
    yield BEGUN + b"\r\n"
    yield from one_long_header()


def requests_without_end() -> Iterator[bytes]:
    while True:
        yield (BEGUN + b"\r\n") * 200


async def connected(service: RunningService) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", urlsplit(service.url).port)


@pytest.mark.parametrize(
    "head",
    [
        one_long_header,
        many_headers,
        a_long_address,
        nothing_but_line_ends,
        what_follows_a_request,
        requests_without_end,
    ],
)
async def test_a_head_that_does_not_end_is_not_read_for_ever(
    service: RunningService, head: Callable[[], Iterator[bytes]]
) -> None:
    _, writer = await connected(service)
    sent = 0
    with suppress(ConnectionError):
        async with asyncio.timeout(LIMIT_SECONDS):
            for piece in head():
                writer.write(piece)
                await writer.drain()
                sent += len(piece)
                assert sent < TOO_MUCH

    async with service.client() as client:
        assert (await client.get("/livez")).status_code == 200


async def test_a_head_that_is_too_long_is_told_so(service: RunningService) -> None:
    reader, writer = await connected(service)
    writer.write(BEGUN + b"X: " + b"x" * HEAD_BYTES)

    async with asyncio.timeout(LIMIT_SECONDS):
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 400 ") and b"too long" in answer
    writer.close()


async def test_a_long_head_and_a_body_that_is_longer_are_read(client: httpx.AsyncClient) -> None:
    wanted = {"email": "ada@example.org", "crd_command": f"echo {'x' * (HEAD_BYTES + PIECE)}"}

    answer = await client.post("/api/v1/leases", json=wanted, headers={"X-Long": "x" * (HEAD_BYTES - PIECE)})

    assert answer.status_code == 201


async def test_a_few_requests_that_do_not_wait_for_each_other_are_answered(service: RunningService) -> None:
    reader, writer = await connected(service)
    writer.write((BEGUN + b"\r\n") * AHEAD)

    async with asyncio.timeout(LIMIT_SECONDS):
        for _ in range(AHEAD):
            await reader.readuntil(b"HTTP/1.1 200 OK\r\n")
    writer.close()


@pytest.mark.parametrize("begun", [b"", BEGUN])
async def test_a_head_that_does_not_come_is_not_waited_for_for_ever(
    service: RunningService, begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allocator.http1.HEAD_SECONDS", 0.1)
    reader, writer = await connected(service)
    writer.write(begun)

    async with asyncio.timeout(LIMIT_SECONDS):
        answer = await reader.read()

    assert b"HTTP/1.1 200 OK" not in answer
    writer.close()


async def test_nor_is_the_next_head_of_a_connection(service: RunningService, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = await connected(service)
    async with asyncio.timeout(LIMIT_SECONDS):
        writer.write(BEGUN + b"\r\n")
        await reader.readuntil(b"HTTP/1.1 200 OK\r\n")
        monkeypatch.setattr("allocator.http1.HEAD_SECONDS", 0.1)
        writer.write(BEGUN)
        assert b"HTTP/1.1" not in await reader.read()
    writer.close()


async def test_what_no_browser_sends_in_a_head_is_refused(service: RunningService) -> None:
    reader, writer = await connected(service)
    writer.write(BEGUN + b"Cookie: lablink=\x7f\r\n\r\n")

    async with asyncio.timeout(LIMIT_SECONDS):
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_a_connection_that_idles_is_kept_for_longer_than_balancers_keep_theirs(service: RunningService) -> None:
    reader, writer = await connected(service)
    async with asyncio.timeout(LIMIT_SECONDS):
        writer.write(BEGUN + b"\r\n")
        await reader.readuntil(b"HTTP/1.1 200 OK\r\n")
    there, here = service.server.server_state.connections, writer.get_extra_info("sockname")
    (kept,) = (each for each in there if isinstance(each, Http1) and each.client == here)

    await reached(lambda: kept.timeout_keep_alive_task is not None)

    assert kept.timeout_keep_alive_task is not None
    assert kept.timeout_keep_alive_task.when() - asyncio.get_running_loop().time() > MINUTE
    writer.close()

"""A hub that says what no allocator says: the link is over, and nothing of it stays."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.server import ServerConnection, serve

from client.link import Link, dial
from tests.support import LIMIT_SECONDS


@asynccontextmanager
async def saying(words: str) -> AsyncIterator[str]:
    """The address of somebody who says that to whoever comes, and then listens."""

    async def say(socket: ServerConnection) -> None:
        await socket.send(words)
        await socket.wait_closed()

    async with serve(say, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}"


@pytest.mark.parametrize("words", ["{", "1", "[]", '"wake"', "null"])
async def test_what_is_no_message_ends_the_link_and_its_socket(words: str) -> None:
    ended = asyncio.Event()
    async with saying(words) as url, asyncio.timeout(LIMIT_SECONDS):
        socket = await dial(url, None, "token")
        link = Link(socket, lambda told: ended.set() if told is None else None)
        await ended.wait()
        await socket.wait_closed()
        assert link.ended

"""What idle machines say is answered with as little work as that takes, and with nothing taken for what it is not."""

import asyncio
import json
import math
import struct
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosed

from allocator.sockets import MachineSocket
from tests.support import LIMIT_SECONDS
from tests.support.hub import HELLO, Talker, talking
from tests.support.machine import Machine, Pool
from tests.support.service import RunningService

MASK = bytes((0x89 ^ 0x20, 0x80 ^ 0x20, 0, 0))
"""With this mask six spaces are, on their way, an empty ping."""


@pytest.fixture
async def talker(service: RunningService, machine: Machine) -> AsyncIterator[Talker]:
    """A machine that was greeted."""
    async with talking(service.url, machine.address.password) as talker:
        await talker.say(HELLO)
        await talker.answered()
        yield talker


def socket_of(service: RunningService) -> MachineSocket:
    """The allocator's end of the only connection."""
    [socket] = [each for each in service.server.server_state.connections if isinstance(each, MachineSocket)]
    return socket


@pytest.mark.parametrize("payload", [b"", b"four", b"x" * 125])
async def test_a_ping_is_answered_with_what_it_said(talker: Talker, payload: bytes) -> None:
    await (await talker.socket.ping(payload))


async def test_part_of_a_message_that_looks_like_a_ping_is_none(service: RunningService, talker: Talker) -> None:
    text = " " * 6 + json.dumps(HELLO)
    payload = bytes(letter ^ MASK[place % 4] for place, letter in enumerate(text.encode()))
    assert payload.startswith(b"\x89\x80")
    socket = socket_of(service)
    for piece in (bytes((0x81, 0x80 | len(payload))) + MASK, payload[:6], payload[6:]):
        socket.data_received(piece)
    assert "answer" in await talker.answered()


async def test_a_ping_between_the_parts_of_a_message_is_one(service: RunningService, talker: Talker) -> None:
    text, socket = json.dumps(HELLO).encode(), socket_of(service)
    pong = await talker.socket.ping(b"now")
    for opcode, part in ((0x01, text[:9]), (0x89, b"meanwhile"), (0x80, text[9:])):
        socket.data_received(bytes((opcode, 0x80 | len(part), 0, 0, 0, 0)) + part)
    await pong
    assert "answer" in await talker.answered()


async def test_who_pings_without_end_is_cut_off(
    service: RunningService, talker: Talker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allocator.sockets.FRAMES", 5)
    socket = socket_of(service)
    for _ in range(6):
        socket.data_received(b"\x89\x80\0\0\0\0")
    assert await talker.is_closed() == 1006


@pytest.mark.parametrize(("room", "read_on"), [(0, [True, False]), (5000, [False, False])])
async def test_who_says_more_than_is_listened_to_or_much_is_not_read_from_until_it_was(
    service: RunningService, talker: Talker, room: int, read_on: list[bool]
) -> None:
    socket, hello = socket_of(service), (json.dumps(HELLO) + " " * room).encode()
    was_read = []
    for _ in range(2):
        socket.data_received(struct.pack("!BBHI", 0x81, 0x80 | 126, len(hello), 0) + hello)
        was_read.append(socket.transport.is_reading())
    assert was_read == read_on
    for _ in range(2):
        assert "answer" in await talker.answered()
    assert socket.transport.is_reading()


async def test_who_pings_and_never_says_a_word_is_cut_off(
    service: RunningService, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allocator.sockets.FRAMES", math.inf)
    monkeypatch.setattr("allocator.link.FIRST_WORD_SECONDS", 0.2)
    async with talking(service.url, machine.address.password) as mute:
        await pings_until_cut_off(mute)


async def test_who_was_greeted_and_says_nothing_more_but_pings_is_cut_off(
    service: RunningService, pool: Pool, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allocator.sockets.FRAMES", math.inf)
    monkeypatch.setattr("allocator.link.OVERDUE_SECONDS", 0.2)
    await pool.hello_every(0.1)
    async with talking(service.url, machine.address.password) as mute:
        await mute.say(HELLO)
        await mute.answered()

        await pings_until_cut_off(mute)


async def pings_until_cut_off(mute: Talker) -> None:
    """Ping on and on: that is no word."""
    async with asyncio.timeout(LIMIT_SECONDS):
        with suppress(ConnectionClosed):
            while True:
                await (await mute.socket.ping())

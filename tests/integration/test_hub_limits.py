"""Who is silent, in no hurry, cut off or many at the hub keeps nobody else from it."""

import asyncio
import json
import math
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import cast
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import InvalidStatus

from allocator.doorman import Doorman
from allocator.http1 import Http1
from allocator.tasks import alongside
from client.protocol import HUB_PATH, Memory
from client.scram import hub_token
from client.transport import Unreachable
from tests.support.allocator import Allocator
from tests.support.hub import HELLO, hub_transport, talking
from tests.support.machine import LIMIT_SECONDS, Machine, Pool, reached
from tests.support.service import RunningService

CROWD = 20_000
"""So many turns of the loop until they are let in one by one; what is sent here arrives within a few."""


class Other:
    """A machine in line."""

    def __init__(self) -> None:
        self.is_in = asyncio.Event()

    def come_in(self) -> None:
        self.is_in.set()


def frame(opcode: int, payload: bytes = b"") -> bytes:
    """A frame as a client sends it, masked with zeros. Without 0x80 in its opcode more of its message follows."""
    return bytes([opcode, 0x80 | len(payload), 0, 0, 0, 0]) + payload


HELLO_FRAME = frame(0x81, json.dumps(HELLO).encode())
HELLO_BEGUN, EMPTY_PART, EMPTY_PING = frame(0x01, b"{"), frame(0x00), frame(0x89)


pytestmark = pytest.mark.usefixtures("service")
"""It comes first, as it says what its pool accepts; `pool` then says what these tests need."""


@asynccontextmanager
async def bare(service: RunningService) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that says nothing by itself, as a library would."""
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(service.url).port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def handshake(password: str) -> bytes:
    lines = [
        f"GET {HUB_PATH} HTTP/1.1",
        "Host: 127.0.0.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        f"Authorization: Bearer {hub_token(password)}",
        "\r\n",
    ]
    return "\r\n".join(lines).encode()


async def ended(reader: asyncio.StreamReader) -> bool:
    """True once the other side has ended it; fails the test if it does not."""
    async with asyncio.timeout(LIMIT_SECONDS):
        try:
            while await reader.read(65_536):
                pass
        except ConnectionResetError:
            pass
    return True


async def test_a_link_that_brings_nothing_any_more_not_even_a_ping_is_given_up(
    service: RunningService, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allocator.sockets.SILENCE_SECONDS", 1.5)
    async with bare(service) as (reader, writer):
        writer.write(handshake(machine.address.password))
        assert b"101 Switching Protocols" in await reader.readuntil(b"\r\n\r\n")
        assert await ended(reader)


async def test_a_link_that_pings_is_kept(
    service: RunningService, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allocator.sockets.SILENCE_SECONDS", 2.0)
    async with bare(service) as (silent, writer), talking(service.url, machine.address.password) as talker:
        await talker.say(HELLO)
        await talker.hears()
        writer.write(handshake("some other password"))
        while not silent.at_eof():
            await (await talker.socket.ping())
            try:
                async with asyncio.timeout(0.1):
                    await ended(silent)
            except TimeoutError:
                continue
        await talker.say(HELLO)
        assert "answer" in await talker.hears()


async def test_who_does_not_read_is_not_read_from_and_so_falls_silent(
    service: RunningService, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allocator.sockets.SILENCE_SECONDS", 1.5)
    monkeypatch.setattr("allocator.sockets.FRAMES", 10_000_000)

    async def ping_on(writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(LIMIT_SECONDS):
            while True:
                writer.write((b"\x89\xfd\0\0\0\0" + b"x" * 125) * 500)
                await writer.drain()

    async with bare(service) as (reader, writer):
        writer.write(handshake(machine.address.password))
        await reader.readuntil(b"\r\n\r\n")
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        with pytest.raises(ConnectionError):
            await ping_on(writer)


@pytest.mark.parametrize("sent", [EMPTY_PING, EMPTY_PART, HELLO_FRAME])
async def test_who_sends_frames_without_end_is_cut_off(
    service: RunningService, pool: Pool, machine: Machine, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allocator.sockets.SILENCE_SECONDS", 600.0)
    monkeypatch.setattr("allocator.link.FIRST_WORD_SECONDS", 600.0)
    async with bare(service) as (reader, writer):
        writer.write(handshake(machine.address.password))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HELLO_FRAME + HELLO_BEGUN * (sent == EMPTY_PART))

        async def flood() -> None:
            with suppress(ConnectionError):
                while True:
                    writer.write(sent * 1000)
                    await writer.drain()

        async with alongside(flood()):
            assert await ended(reader)
    async with service.client() as client:
        assert (await client.get("/livez")).status_code == 200


async def test_of_many_who_say_nothing_the_first_make_room(
    service: RunningService, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allocator.hub.QUIET", 2)
    async with talking(service.url, machine.address.password) as known:
        await known.say(HELLO)
        await known.hears()
        async with (
            talking(service.url, "first") as first,
            talking(service.url, "second") as second,
            talking(service.url, "third"),
        ):
            assert await first.is_closed() == 1008
            await second.say(HELLO)
            assert (await second.hears())["refused"] == "LL010"
        await known.say(HELLO)
        assert "answer" in await known.hears()


async def test_who_keeps_its_own_row_locked_has_one_verb_under_way_however_often_it_comes(
    service: RunningService, pool: Pool, machine: Machine
) -> None:
    locked = await machine.vm.connect()
    await locked.execute("BEGIN")
    await locked.execute("SELECT client_api.unhealthy(0, 'x')")
    async with AsyncExitStack() as links:
        for number in range(2):
            link = await links.enter_async_context(talking(service.url, machine.address.password))
            await link.say(HELLO)
            await link.hears()
            await link.say({"verb": "unhealthy", "epoch": 0, "reason": f"link {number}"})
        assert "unavailable" in await link.hears()
        await locked.execute("ROLLBACK")
        async with asyncio.timeout(LIMIT_SECONDS):
            while await pool.owner.fetchval("SELECT reason FROM vms") != "unhealthy: link 0":
                pass
    await locked.close()


@pytest.mark.parametrize("how", ["retire_vm", "revoke_vm"])
async def test_a_machine_that_was_cut_off_is_gone_with_its_next_word(
    service: RunningService, pool: Pool, machine: Machine, how: str
) -> None:
    async with talking(service.url, machine.address.password) as talker:
        await talker.say(HELLO)
        assert "answer" in await talker.hears()
        await pool.owner.execute(f"SELECT {how}('vm-1')")
        await talker.say({"verb": "claim", "epoch": 0})
        while "wake" in (heard := await talker.hears()):
            pass
        assert heard["refused"] in ("LL002", "LL010")
        assert await talker.is_closed() == 1008
    await reached(lambda: service.service.hub.machines == 0)


async def test_a_deleted_machine_is_woken_to_learn_it(service: RunningService, pool: Pool, machine: Machine) -> None:
    async with talking(service.url, machine.address.password) as talker:
        await talker.say(HELLO)
        assert "answer" in await talker.hears()
        await pool.owner.execute("DELETE FROM vms")
        assert await talker.hears() == {"wake": True}


async def test_neither_that_machines_come_and_go_nor_what_strangers_say_is_logged(
    service: RunningService, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.clear()
    async with talking(service.url, machine.address.password) as talker:
        await talker.say(HELLO)
        await talker.hears()
    async with bare(service) as (reader, writer):
        writer.write(handshake("password").replace(b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: x"))
        assert await ended(reader)
    async with bare(service) as (reader, writer):
        writer.write(handshake("password"))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"no frame at all")
        assert await ended(reader)
    await reached(lambda: service.service.hub.machines == 0)
    assert [record.getMessage() for record in caplog.records if record.name.startswith("uvicorn")] == []


async def test_who_hangs_up_at_the_door_or_speaks_there_is_not_let_in(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_in: list[Http1] = []
    monkeypatch.setattr("allocator.doorman.AT_ONCE", 1)
    monkeypatch.setattr("allocator.doorman.LONGEST_SECONDS", math.inf)
    monkeypatch.setattr(Http1, "come_in", let_in.append)
    doorman: Doorman = cast("partial[Http1]", service.server.config.http).args[0]
    for _ in range(CROWD):
        doorman.ask(Other())
    async with bare(service) as (_, leaving), bare(service) as (reader, speaker):
        for writer in (leaving, speaker):
            writer.write(handshake("password"))
        for _ in range(100):
            await asyncio.sleep(0)
        leaving.transport.abort()
        speaker.write(b"hello")
        assert await ended(reader)
        doorman.ask(last := Other())
        await last.is_in.wait()
    assert let_in == []


async def test_who_stands_in_line_is_counted(service: RunningService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("allocator.doorman.AT_ONCE", 1)
    monkeypatch.setattr("allocator.doorman.LONGEST_SECONDS", math.inf)
    doorman: Doorman = cast("partial[Http1]", service.server.config.http).args[0]
    for _ in range(CROWD):
        doorman.ask(Other())
    assert 0 < await Allocator(urlsplit(service.url).port or 0).figure("lablink_hub_waiting") < CROWD


async def test_when_the_line_is_too_long_a_machine_is_told_when_to_come_again_and_does(
    service: RunningService, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allocator.doorman.LONGEST_SECONDS", -1.0)
    with pytest.raises(InvalidStatus) as refused:
        async with talking(service.url, machine.address.password):
            pass
    assert (refused.value.response.status_code, refused.value.response.headers["Retry-After"]) == (503, "1")
    waits: list[tuple[float, float]] = []

    def note(*bounds: float) -> float:
        waits.append((bounds[0], bounds[1]))
        return 0.0

    monkeypatch.setattr(random, "uniform", note)
    async with hub_transport(machine, service.url) as transport:
        with pytest.raises(Unreachable, match="503"):
            await transport.hello(Memory(0, None))
        await transport.idle(60)
        assert waits == [(1.0, 2.0)]
        monkeypatch.undo()
        assert (await transport.hello(Memory(0, None))).hostname == "vm-1"

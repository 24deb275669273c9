"""Who is silent, in no hurry, cut off or many at the hub keeps nobody else from it."""

import asyncio
import json
from contextlib import AsyncExitStack, suppress

import pytest

from allocator.sockets import SILENCE_SECONDS, MachineSocket
from allocator.tasks import alongside
from tests.support import LIMIT_SECONDS
from tests.support.hub import HELLO, bare, ended, handshake, let_in, talking
from tests.support.machine import Machine, Pool, reached
from tests.support.service import RunningService


def frame(opcode: int, payload: bytes = b"") -> bytes:
    """A frame as a client sends it, masked with zeros. Without 0x80 in its opcode more of its message follows."""
    return bytes([opcode, 0x80 | len(payload), 0, 0, 0, 0]) + payload


HELLO_FRAME = frame(0x81, json.dumps(HELLO).encode())
HELLO_BEGUN, EMPTY_PART, EMPTY_PING = frame(0x01, b"{"), frame(0x00), frame(0x89)


pytestmark = pytest.mark.usefixtures("service")
"""It comes first, as it says what its pool accepts; `pool` then says what these tests need."""


async def test_a_link_that_brings_nothing_any_more_not_even_a_ping_is_given_up(
    service: RunningService, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allocator.sockets.SILENCE_SECONDS", 1.5)
    async with let_in(service, machine.address.password) as (reader, _):
        assert await ended(reader)


async def test_a_link_that_pings_is_kept(service: RunningService, machine: Machine) -> None:
    async with (
        let_in(service, "some other password") as (silent, _),
        talking(service.url, machine.address.password) as talker,
    ):
        await talker.say(HELLO)
        await talker.answered()
        links = [each for each in service.server.server_state.connections if isinstance(each, MachineSocket)]
        for link in links:
            link._heard_at -= SILENCE_SECONDS  # so long ago
        await (await talker.socket.ping())
        for link in links:
            link._look()
        assert await ended(silent)
        await talker.say(HELLO)
        assert "answer" in await talker.answered()


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

    async with let_in(service, machine.address.password) as (reader, writer):
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
        await known.answered()
        async with (
            talking(service.url, "first") as first,
            talking(service.url, "second") as second,
            talking(service.url, "third"),
        ):
            assert await first.is_closed() == 1008
            await second.say(HELLO)
            assert (await second.hears())["refused"] == "LL010"
        await known.say(HELLO)
        assert "answer" in await known.answered()


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
            await link.answered()
            await link.say({"verb": "unhealthy", "epoch": 0, "reason": f"link {number}"})
        assert "unavailable" in await link.answered()
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
        assert "answer" in await talker.answered()
        await pool.owner.execute(f"SELECT {how}('vm-1')")
        await talker.say({"verb": "claim", "epoch": 0})
        assert (await talker.answered())["refused"] in ("LL002", "LL010")
        assert await talker.is_closed() == 1008
    await reached(lambda: service.service.hub.machines == 0)


async def test_a_deleted_machine_is_woken_to_learn_it(service: RunningService, pool: Pool, machine: Machine) -> None:
    async with talking(service.url, machine.address.password) as talker:
        await talker.say(HELLO)
        assert "answer" in await talker.answered()
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

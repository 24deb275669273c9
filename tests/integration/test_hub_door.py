"""Machines that come all at once stand in line at the hub, and each is let in or told when to come again."""

import asyncio
import random
from functools import partial
from typing import cast
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import InvalidStatus

from allocator.doorman import Doorman
from allocator.http1 import Http1
from client.protocol import Memory
from client.transport import Unreachable
from tests.support.allocator import Allocator
from tests.support.hub import bare, ended, handshake, hub_transport, talking
from tests.support.machine import Machine, reached
from tests.support.service import RunningService


class Other:
    """A machine in line."""

    def __init__(self) -> None:
        self.is_in = asyncio.Event()

    def come_in(self) -> None:
        self.is_in.set()


def doorman_of(service: RunningService) -> Doorman:
    """The doorman, who lets nobody in: it is as if somebody else were to be let in first."""
    doorman: Doorman = cast("partial[Http1]", service.server.config.http).args[0]
    doorman._at_work = True
    return doorman


async def test_who_hangs_up_at_the_door_or_speaks_there_is_not_let_in(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_in: list[Http1] = []
    monkeypatch.setattr(Http1, "come_in", let_in.append)
    doorman = doorman_of(service)
    async with bare(service) as (_, leaving), bare(service) as (reader, speaker):
        for writer in (leaving, speaker):
            writer.write(handshake("password"))
        await reached(lambda: doorman.waiting == 2)
        leaving.transport.abort()
        speaker.write(b"hello")
        assert await ended(reader)
        await reached(lambda: doorman.waiting == 0)
        doorman._at_work = False
        doorman.ask(last := Other())
        await last.is_in.wait()
    assert let_in == []


async def test_who_stands_in_line_is_counted(service: RunningService) -> None:
    doorman = doorman_of(service)
    for _ in range(20):
        doorman.ask(Other())
    assert await Allocator(urlsplit(service.url).port or 0).figure("lablink_hub_waiting") == 20


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

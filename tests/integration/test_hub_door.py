"""Machines that come all at once stand in line at the hub, and each is let in or told when to come again."""

import asyncio
import math
import random
from dataclasses import dataclass
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
from tests.support.machine import Machine
from tests.support.service import RunningService

CROWD = 20_000
"""So many turns of the loop until they are let in one by one; what is sent here arrives within a few."""


class Other:
    """A machine in line."""

    def __init__(self) -> None:
        self.is_in = asyncio.Event()

    def come_in(self) -> None:
        self.is_in.set()


@dataclass(eq=False, slots=True)
class Again:
    """A machine that stands in line again as soon as it is let in."""

    doorman: Doorman
    comes_again: bool = True

    def come_in(self) -> None:
        if self.comes_again:
            self.doorman.ask(self)


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
    monkeypatch.setattr("allocator.doorman.LONGEST_SECONDS", math.inf)
    doorman: Doorman = cast("partial[Http1]", service.server.config.http).args[0]
    those = [Again(doorman) for _ in range(20)]
    for each in those:
        doorman.ask(each)
    waiting = await Allocator(urlsplit(service.url).port or 0).figure("lablink_hub_waiting")
    for each in those:
        each.comes_again = False
    assert waiting == len(those)


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

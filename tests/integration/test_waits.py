"""How long a machine waits before it connects again: what counts is a whole look that worked, not the hello alone."""

import asyncio
import random
from pathlib import Path
from uuid import uuid4

import pytest

from client.direct import DirectTransport
from client.protocol import Report
from client.transport import Transport, Unreachable
from tests.support.database import Database
from tests.support.front import Front
from tests.support.hub import NOTHING, hub_machine, hub_transport
from tests.support.machine import Machine
from tests.support.wire import wire_to

STARTED = Report(uuid4(), 1, "started")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The longest that each wait could have been; nobody waits."""
    longest: list[float] = []

    def uniform(_least: float, most: float) -> float:
        longest.append(most)
        return 0.0

    monkeypatch.setattr(random, "uniform", uniform)
    return longest


async def looks_and_reports(transport: Transport) -> None:
    """A look whose report gets lost, and the wait after it."""
    await transport.hello(NOTHING)
    with pytest.raises(Unreachable):
        await transport.report(STARTED)
    await transport.idle(10)


async def test_who_is_heard_and_then_cut_off_waits_longer_each_time(
    database: Database, tmp_path: Path, waits: list[float]
) -> None:
    async with wire_to(database.server) as wire:
        machine = Machine.of(await database.vm(), tmp_path / "vm", wire.port)
        async with DirectTransport(machine.address) as transport:
            for _ in range(3):
                wire.lose("request", "report")
                await looks_and_reports(transport)
            assert waits == [0.5, 1.0, 2.0]

            await transport.hello(NOTHING)
            transport.wake.clear()
            await transport.idle(0)
            wire.cut()
            await transport.idle(10)
            assert waits[3:] == [0.5]


async def test_over_the_hub_it_is_the_same(
    database: Database, tmp_path: Path, front: Front, waits: list[float]
) -> None:
    machine = await hub_machine(database, tmp_path / "vm")

    async def cut() -> None:
        front.cut()

    async with hub_transport(machine, front.url) as transport:
        for _ in range(3):
            await transport.hello(NOTHING)
            front.stalls = True
            said, _ = await asyncio.gather(transport.report(STARTED), cut(), return_exceptions=True)
            assert isinstance(said, Unreachable)
            front.stalls = False
            await transport.idle(10)
        assert waits == [0.5, 1.0, 2.0]

        await transport.hello(NOTHING)
        transport.wake.clear()
        await transport.idle(0)
        front.cut()
        await transport.idle(10)
        assert waits[3:] == [0.5]

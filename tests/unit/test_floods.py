"""Who is asked about for what they notify."""

import asyncio

from allocator.floods import FLOOD_BYTES, Floods
from allocator.tasks import alongside
from tests.support import LIMIT_SECONDS


async def test_a_busy_session_that_was_spared_is_not_asked_about_at_every_turn() -> None:
    asked: list[int] = []
    spared = {1: asyncio.Event(), 2: asyncio.Event()}

    async def stop(pid: int) -> str | None:
        asked.append(pid)
        spared[pid].set()
        return None

    floods = Floods(stop)
    async with alongside(floods.run()), asyncio.timeout(LIMIT_SECONDS):
        floods.heard(1, "x" * FLOOD_BYTES)
        await spared[1].wait()
        for _ in range(3):
            floods.heard(1, "x" * FLOOD_BYTES)
        floods.heard(2, "x" * FLOOD_BYTES)
        await spared[2].wait()
    assert asked == [1, 2]


async def test_that_one_cannot_be_asked_about_keeps_no_other_from_it() -> None:
    asked = asyncio.Event()

    async def stop(pid: int) -> str | None:
        if pid == 1:
            raise RuntimeError("nobody expected that")
        asked.set()
        return None

    floods = Floods(stop)
    async with alongside(floods.run()), asyncio.timeout(LIMIT_SECONDS):
        for pid in (1, 2):
            floods.heard(pid, "x" * FLOOD_BYTES)
        await asked.wait()

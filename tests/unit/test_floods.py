"""Who is asked about for what they notify."""

import asyncio

from allocator.floods import FLOOD_BYTES, Floods
from allocator.tasks import alongside


async def test_a_busy_session_that_was_spared_is_not_asked_about_at_every_turn() -> None:
    asked: list[int] = []
    spared = {1: asyncio.Event(), 2: asyncio.Event()}

    async def stop(pid: int) -> str | None:
        asked.append(pid)
        spared[pid].set()
        return None

    floods = Floods(stop)
    async with alongside(floods.run()), asyncio.timeout(5):
        floods.heard(1, "x" * FLOOD_BYTES)
        await spared[1].wait()
        for _ in range(3):
            floods.heard(1, "x" * FLOOD_BYTES)
        floods.heard(2, "x" * FLOOD_BYTES)
        await spared[2].wait()
    assert asked == [1, 2]

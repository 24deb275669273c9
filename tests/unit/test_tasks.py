"""What must not be left half done comes to its end, whoever is cancelled meanwhile; who only waits ends at once."""

import asyncio
import gc
from typing import Any

import pytest

from allocator.tasks import happens, to_its_end


class WentWrong(Exception):
    """How the work ends."""


async def wait_for(permission: asyncio.Event, failure: Exception | None = None) -> str:
    await permission.wait()
    if failure:
        raise failure
    return "done"


async def turns() -> None:
    """Let everybody else go on as far as they come."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_whoever_is_cancelled_again_and_again_is_when_the_work_has_ended() -> None:
    may = asyncio.Event()
    waiting = asyncio.create_task(to_its_end(wait_for(may)))
    for _ in range(3):
        await turns()
        waiting.cancel()
    await turns()
    assert not waiting.done()

    may.set()
    await asyncio.wait([waiting])
    assert waiting.cancelled()


async def test_nothing_is_logged_of_what_failed_when_whoever_wanted_it_was_cancelled() -> None:
    logged: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: logged.append(context))
    may = asyncio.Event()
    waiting = asyncio.create_task(to_its_end(wait_for(may, WentWrong())))
    await turns()
    waiting.cancel()
    may.set()
    await asyncio.wait([waiting])
    assert waiting.cancelled()

    del waiting
    gc.collect()
    assert logged == []


async def test_what_the_work_gives_or_raises_is_whose_it_is() -> None:
    may = asyncio.Event()
    may.set()
    assert await to_its_end(wait_for(may)) == "done"
    with pytest.raises(WentWrong):
        await to_its_end(wait_for(may, WentWrong()))


async def test_whoever_is_cancelled_in_the_moment_in_which_what_they_wait_for_happens_is_cancelled() -> None:
    event = asyncio.Event()
    waiting = asyncio.create_task(happens(event, 3600))
    await turns()
    event.set()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()


async def test_what_does_not_happen_is_not_waited_for_for_ever() -> None:
    await happens(asyncio.Event(), 0)

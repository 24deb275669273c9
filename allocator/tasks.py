"""Runs a loop beside a block of code, and ends it with the block; something short, beside everything, or to its end.

And waits, but not for ever.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

T = TypeVar("T")


@asynccontextmanager
async def alongside(loop: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """`loop` runs until the block ends; then it is cancelled and has ended."""
    task = asyncio.create_task(loop)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def happens(event: asyncio.Event, seconds: float) -> None:
    """Return when it has, or that time has passed. Whoever is cancelled in the moment in which it happens is cancelled.

    asyncio.wait_for() forgets that they were, before Python 3.12.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """What it gives. Whoever is cancelled meanwhile, however often, is when it has ended, however it did."""
    task, cancelled = asyncio.create_task(work), None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # or asyncio says, with all of it, that nobody asked
    raise cancelled


class Spawned:
    """What is done while everything else goes on, and ends by itself."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)  # asyncio keeps none alive
        task.add_done_callback(self._tasks.discard)

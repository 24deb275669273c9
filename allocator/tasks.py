"""Runs a loop beside a block of code, and ends it with the block."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any


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

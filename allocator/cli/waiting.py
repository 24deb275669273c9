"""Says for whom a command waits, when somebody's open transaction holds what it needs, and gives up in a sentence."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import TypeVar

import asyncpg

from allocator.blockers import SAY_AFTER, Blocker, blocker
from allocator.cli.admin import limit_lock_waits
from allocator.cli.failures import CommandFailed
from allocator.cli.output import complain, duration
from client.network import Connection

GIVE_UP_AFTER = 5.0
"""Seconds that a command waits for one lock."""

T = TypeVar("T")
Connect = Callable[[], AbstractAsyncContextManager[Connection]]


async def wait_aloud(connect: Connect, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Do `work` on a connection. Raises CommandFailed when a lock that it needs is not given up in time."""
    async with connect() as connection:
        await limit_lock_waits(connection, GIVE_UP_AFTER)
        telling = asyncio.create_task(_tell(connect, connection.get_server_pid()))
        try:
            return await work(connection)
        except asyncpg.LockNotAvailableError as error:
            raise CommandFailed(_advice(await telling)) from error
        finally:
            telling.cancel()


def say_for_whom(held_by: Blocker) -> None:
    """Says on standard error for whom we wait."""
    complain(f"Waiting for {held_by}, whose transaction has been open for {duration(held_by.seconds)} …")


async def _tell(connect: Connect, pid: int) -> Blocker | None:
    """Say for whom that session waits, once it has waited long enough; returns who it is."""
    await asyncio.sleep(SAY_AFTER)
    with suppress(CommandFailed):
        async with connect() as another:
            held_by = await blocker(another, pid)
        if held_by:
            say_for_whom(held_by)
        return held_by
    return None


def _advice(held_by: Blocker | None) -> str:
    if held_by is None:
        return "Nothing was done: somebody else's transaction holds what this needs. Try again."
    return f"Nothing was done: {held_by.advice}"

"""Looks again whenever the database says that something changed, for as long as somebody watches."""

import asyncio
import errno
import os
import select
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from allocator.cli.failures import Unreachable
from allocator.cli.output import complain
from allocator.standing import listen
from allocator.tasks import happens
from client.network import Connection

LOOK_EVERY = 2.0
"""Seconds after which we look again though nothing was heard: a notification is only a nudge."""

RECONNECT_AFTER = 1.0

Connect = Callable[[], AbstractAsyncContextManager[Connection]]
Look = Callable[[Connection], Awaitable[None]]


async def follow(connect: Connect, look: Look) -> None:
    """Call `look` now and after each change, for ever; a database that goes away is waited for.

    Raises Unreachable only when there was no connection to begin with.
    """
    reached = False
    while True:
        try:
            async with connect() as connection:
                reached = True
                await _look_on(connection, look)
        except Unreachable as failure:
            if not reached:
                raise
            complain(f"{failure} Trying again.")
        await asyncio.sleep(RECONNECT_AFTER)


async def _look_on(connection: Connection, look: Look) -> None:
    """LISTEN first, then look, and again at each nudge, until the connection ends."""
    changed = asyncio.Event()

    def nudge(*_: object) -> None:
        changed.set()

    connection.add_termination_listener(nudge)
    await listen(connection, nudge)
    while not connection.is_closed():
        _require_reader()
        changed.clear()
        await look(connection)
        await happens(changed, LOOK_EVERY)


def _require_reader() -> None:
    """Raises BrokenPipeError once nobody reads our output: else that would show only when there is something to say."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    if any(events & select.POLLERR for _, events in poll.poll(0)):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

"""Waits until nobody is on machines that are about to go, and lends them to nobody else meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from allocator.fleet import record
from allocator.fleet.record import opened
from allocator.operations import AWAY, Connect, Tell
from allocator.tasks import happens, to_its_end
from client.network import Connection
from client.protocol import CHANNEL

LOOK_SECONDS = 5.0
"""A notification may be lost; whoever waits looks now and then."""
AWAY_SECONDS = 180.0
"""How long a database may be away before machines that should be lent again are left to an admin."""
WAITING = "waiting for the database"


@asynccontextmanager
async def drained(connect: Connect, hostnames: Sequence[str], tell: Tell) -> AsyncIterator[None]:
    """The machines are out of allocation and nobody is on them while the block runs.

    Afterwards those that are still in service are lent again, however it ended; what was draining before stays so.
    """
    if not hostnames:
        yield
        return
    begun: list[str] = []
    try:
        async with opened(connect) as connection, connection.transaction():  # whose names are known before it is so
            begun += await connection.fetchval("SELECT drain_vms($1)", list(hostnames))
        await _free(connect, hostnames, tell)
        yield
    finally:
        await to_its_end(_undo(connect, begun))


async def _free(connect: Connect, hostnames: Sequence[str], tell: Tell) -> None:
    """Return when nobody is on any of them. That may take hours: a database that goes away meanwhile is waited for."""
    while True:
        try:
            async with opened(connect) as connection:
                return await _free_as_seen_by(connection, hostnames, tell)
        except AWAY:
            await tell(0, len(hostnames), WAITING)
            await asyncio.sleep(LOOK_SECONDS)


async def _free_as_seen_by(connection: Connection, hostnames: Sequence[str], tell: Tell) -> None:
    changed = asyncio.Event()
    await connection.add_listener(CHANNEL, lambda *_: changed.set())
    while held := await record.held(connection, hostnames):
        await tell(len(hostnames) - len(held), len(hostnames), f"waiting for {held[0].words}")
        await happens(changed, LOOK_SECONDS)
        changed.clear()


async def _undo(connect: Connect, hostnames: Sequence[str]) -> None:
    """Have these lent again. A database that is away is waited for, for a while."""
    now = asyncio.get_running_loop().time
    until = now() + AWAY_SECONDS
    while hostnames:
        try:
            async with opened(connect) as connection:
                await connection.execute("SELECT undrain_vms($1)", list(hostnames))
            return
        except AWAY:
            if now() > until:
                raise
            await asyncio.sleep(LOOK_SECONDS)

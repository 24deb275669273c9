"""Holds everything that would change a machine or a lease: pages are shown, requests are answered 503, clients wait.

It is a lock, so it ends with whoever holds it, however that ends. It binds everybody: pages, clients, sweeps, psql.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from allocator.connection import Connection
from allocator.upkeep import UpkeepFailed
from allocator.upkeep.reach import connected

LOCK = "LOCK TABLE vms, leases IN EXCLUSIVE MODE"
LOCK_SECONDS = 20


@asynccontextmanager
async def paused(dsn: str) -> AsyncIterator[Connection]:
    """Nobody changes a machine or lease of the database at `dsn` (the owner's) until the block ends.

    Yields the connection that holds the lock; who closes it ends the pause. A database without those tables needs none.
    """
    async with connected(dsn) as connection:
        await connection.execute(f"BEGIN; SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
        try:
            await connection.execute(LOCK)
        except asyncpg.UndefinedTableError:
            await connection.execute("ROLLBACK")
        except asyncpg.LockNotAvailableError as error:
            raise UpkeepFailed(
                f"Somebody has held machines or leases locked for {LOCK_SECONDS} s. See who: lablink db locks"
            ) from error
        yield connection

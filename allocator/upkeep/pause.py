"""Holds everything that would change a machine or a lease: pages are shown, requests are answered 503, clients wait.

It is a lock, so it ends with whoever holds it, however that ends. It binds everybody: pages, clients, sweeps, psql.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from allocator.upkeep import UpkeepFailed
from allocator.upkeep.reach import connected
from client.network import Connection

MACHINES_AND_LEASES = "vms, leases"
LOCK_SECONDS = 20
ATTEMPTS = 5
"""Of which each ends when PostgreSQL finds that we and somebody else wait for each other."""


@asynccontextmanager
async def paused(dsn: str, tables: str = MACHINES_AND_LEASES) -> AsyncIterator[Connection]:
    """Nobody changes a machine or lease (or what else is in `tables`) at `dsn`, the owner's, until the block ends.

    Yields the connection that holds the lock; who closes it ends the pause. A database without those tables needs none.
    """
    async with connected(dsn) as connection:
        try:
            await _lock(connection, tables)
        except asyncpg.UndefinedTableError:
            await connection.execute("ROLLBACK")
        except asyncpg.LockNotAvailableError as error:
            raise UpkeepFailed(
                f"Somebody has held machines or leases locked for {LOCK_SECONDS} s. See who: lablink db locks"
            ) from error
        yield connection


async def _lock(connection: Connection, tables: str) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            await connection.execute(f"BEGIN; SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
            await connection.execute(f"LOCK TABLE {tables} IN EXCLUSIVE MODE")
            return
        except asyncpg.DeadlockDetectedError:
            await connection.execute("ROLLBACK")
            if attempt == ATTEMPTS:
                raise

"""How the service asks the database: over connections opened when they are needed; errors come in our own words."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import asyncpg

from allocator import errors
from allocator.connection import Connect, PooledConnection
from allocator.sqlstates import translated
from client.network import Connection

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]
else:
    Pool = asyncpg.Pool

WAIT_SECONDS = 2.0
"""How long a question may wait for a connection."""

PAUSES_SECONDS = (0.05, 0.2, 0.8)
"""After which a statement is run again when PostgreSQL asks for that: what it met may be in its way for a while."""

Answer = TypeVar("Answer")


class Asking:
    """Whoever asks, a statement at a time. Raises ServiceErrors."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def _ask(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        return await self._with(lambda connection: connection.fetch(query, *arguments))

    async def _with(self, ask: Callable[[PooledConnection], Awaitable[Answer]]) -> Answer:
        """What `ask` gives on a connection; it is asked again when two changes met."""
        return await again(lambda: self._once(ask))

    async def _once(self, ask: Callable[[PooledConnection], Awaitable[Answer]]) -> Answer:
        async with self._connection() as connection:
            return await ask(connection)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[PooledConnection]:
        try:
            with translated():
                connection = await self._acquire()
                try:
                    yield connection
                except (asyncio.CancelledError, TimeoutError):
                    connection.terminate()  # otherwise the release waits for an answer that nobody wants any more
                    raise
                finally:
                    await self._pool.release(connection, timeout=WAIT_SECONDS)
        except errors.DatabaseUnavailable:
            # The other connections may lead to the same dead (or, after a fail-over, read-only) server.
            await self._pool.expire_connections()
            raise

    async def _acquire(self) -> PooledConnection:
        try:
            async with asyncio.timeout(WAIT_SECONDS):  # the pool's own makes a task
                return await self._pool.acquire()
        except TimeoutError:
            if self._pool.get_size() < self._pool.get_max_size():
                raise  # a new one could have been opened, but nobody answered
            raise errors.Busy from None


@asynccontextmanager
async def connections(connect: Connect, most: int) -> AsyncIterator[Pool]:
    """At most that many; none is opened yet, so the database may come later."""
    pool: Pool = asyncpg.create_pool(
        connect=connect,
        min_size=0,
        max_size=most,
        max_inactive_connection_lifetime=0,
        reset=_leave_as_it_is,
    )
    async with pool:
        try:
            yield pool
        finally:
            pool.terminate()


async def again(call: Callable[[], Awaitable[Answer]]) -> Answer:
    """What the call gives, which is made again when two changes met."""
    for pause in PAUSES_SECONDS:
        with suppress(errors.Conflict):
            return await call()
        await asyncio.sleep(random.uniform(pause / 2, pause))
    return await call()


async def _leave_as_it_is(_connection: Connection) -> None:
    """Every statement is a transaction of its own and leaves nothing behind; asking for a reset would cost a trip."""

"""Keeps pools as large as they are to be: the database says what is to come and go, and one place has it done."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import asyncpg

from allocator.operations import OperationRefused
from client.network import Connection, hang_up

FAILED_SECONDS = 60.0
"""For how long a pool is left alone after something went wrong that is likely to go wrong again."""
CLOSE_SECONDS = 2.0

SCALED = """
    SELECT name FROM pools WHERE name = coalesce($1, name) AND max_machines IS NOT NULL AND NOT paused ORDER BY name
"""
ORDER = "SELECT grow, leaving FROM scale($1, $2)"


class Actuator(Protocol):
    """What makes machines and takes them away. Each is an operation: both raise OperationRefused while one runs."""

    @property
    def pool(self) -> str | None:
        """The only pool that it can make machines for; None: any."""

    @property
    def own(self) -> Sequence[str] | None:
        """The machines that it can take away; None: those of the record of the fleet."""

    async def grow(self, pool: str, number: int) -> None:
        """Make so many machines more."""

    async def let_go(self, pool: str, hostnames: Sequence[str]) -> None:
        """Take these of the pool away, none of which is lent to anybody."""


class Scaler:
    """Looks every few seconds what is to be done, and does it."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        actuator: Actuator,
        complain: Callable[[Exception], object],
        look_seconds: float,
    ) -> None:
        self._connect = connect
        self._actuator = actuator
        self._complain = complain
        self._look_seconds = look_seconds
        self._left_until: dict[str, float] = {}

    async def run(self) -> None:
        """Scale for ever; what goes wrong is complained of, and a later look decides anew."""
        while True:
            pause = self._look_seconds
            try:
                await self.run_once()
            except OperationRefused:
                pass  # something long runs: what it leaves is seen at the next look
            except Exception as error:  # noqa: BLE001  # the outermost loop
                self._complain(error)
                pause = FAILED_SECONDS
            await asyncio.sleep(pause)

    async def run_once(self) -> None:
        """One look at each pool. What goes wrong with one is complained of, keeps no other from its size, and leaves
        that pool alone for a minute. Raises OperationRefused and what asyncpg does when there is no database.
        """
        for pool in [row["name"] for row in await self._ask(SCALED, self._actuator.pool)]:
            if self._left_until.get(pool, 0) < time.monotonic():
                try:
                    await self._scale(pool)
                except OperationRefused:
                    raise
                except Exception as error:  # noqa: BLE001  # what goes wrong with a pool is that pool's
                    self._complain(error)
                    self._left_until[pool] = time.monotonic() + FAILED_SECONDS

    async def _scale(self, pool: str) -> None:
        """Have done what is to be done with a pool: it is asked when it is its turn, for turns may take minutes."""
        own = self._actuator.own
        [order] = await self._ask(ORDER, pool, None if own is None else list(own))
        if order["leaving"]:
            await self._actuator.let_go(pool, order["leaving"])
        if order["grow"]:
            await self._actuator.grow(pool, order["grow"])

    async def _ask(self, question: str, *arguments: object) -> Sequence[asyncpg.Record]:
        connection = await self._connect()
        try:
            return await connection.fetch(question, *arguments)
        finally:
            await hang_up(connection, CLOSE_SECONDS)

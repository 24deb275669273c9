"""Whether the machine is well: looked at beside the agent's loop, and before somebody else gets it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

from client.executor import Executor
from client.protocol import Orders
from client.session import WipeFailed

SOON_SECONDS, ROUND_SECONDS = 6.0, 60.0
AGAIN_SECONDS = 5.0
"""After so long trouble is looked at a second time, and believed if it is still there."""

WELL_ROUNDS = 3
"""So many in a row must pass before a machine that was not well says that it is."""

_PATIENCE_SECONDS = 5.0

log = logging.getLogger("lablink.client")


class Health:
    """The health of one machine. `wake` is called when the agent should look."""

    def __init__(self, executor: Executor, wake: Callable[[], None]) -> None:
        self._executor = executor
        self._wake = wake
        self._orders: Orders | None = None
        self._heard = asyncio.Event()
        self._rounds = 0
        self._well_rounds = 0
        self._said: tuple[int, str] | None = None
        self._stays: tuple[int, str, int] | None = None
        self._is_noted = True  # by an earlier client, maybe
        self._clearing: tuple[int, asyncio.Task[str | None]] | None = None
        self.trouble: str | None = None
        """What is wrong with the machine, as it was looked at last."""

    async def run(self) -> NoReturn:
        """Look soon after the first hello, then once a minute. In tests machines say hello faster, and so is this."""
        try:
            await self._heard.wait()
            await asyncio.sleep(min(SOON_SECONDS, 6 * self._period))
            while True:
                await self.look()
                await asyncio.sleep(min(ROUND_SECONDS, 6 * self._period))
        finally:
            self._end_clearing()

    def note(self, orders: Orders) -> None:
        """What the machine is there for now."""
        self._orders = orders
        self._heard.set()

    async def look(self) -> None:
        """See how the machine is. What comes of it where an admin has taken it is the database's to say."""
        if self._orders is None:
            return
        self.trouble = await self._trouble(lent=self._orders.status == "in-use")
        self._rounds += 1
        self._well_rounds = 0 if self.trouble else self._well_rounds + 1
        if self.trouble:
            self._wake()

    def is_clearing(self, epoch: int) -> bool:
        """Whether `clears` was asked about this wipe, and has no answer yet."""
        return self._clearing is not None and self._clearing[0] == epoch

    async def clears(self, epoch: int) -> bool:
        """Whether the machine, which was wiped at `epoch`, may be lent again; if not, `trouble` says why not.

        What takes long is not waited for, because hellos must go on: then ask again when woken.
        """
        if self._clearing is None or self._clearing[0] != epoch:
            self._end_clearing()
            self._clearing = epoch, asyncio.create_task(self._trouble(lent=False))
        task = self._clearing[1]
        if not (await asyncio.wait({task}, timeout=_PATIENCE_SECONDS))[0]:
            task.add_done_callback(lambda _: self._wake())
            return False
        self._clearing = None
        self.trouble = task.result()
        self._well_rounds = 0 if self.trouble else self._well_rounds
        return self.trouble is None

    def _end_clearing(self) -> None:
        if self._clearing:
            self._clearing[1].cancel()

    async def tell(self, say: Callable[[int, str], Awaitable[str]], orders: Orders, reason: str) -> bool:
        """Say what is wrong: again and again, but once a round where the machine stays with whoever has it.

        Returns whether it does.
        """
        words = orders.epoch, reason
        if self._said != words:
            log.error("unhealthy", extra={"reason": reason})
        this = (*words, self._rounds)
        self._said, self._stays = words, self._stays if self._stays == this else None
        if self._stays is None and await say(*words) == orders.status == "in-use":
            self._stays, self._is_noted = this, True
        return self._stays is not None

    async def tell_well(self, say: Callable[[int], Awaitable[None]], orders: Orders) -> None:
        """Say that what was wrong has passed: of a machine that is failed, or stayed with whoever has it."""
        if (orders.status == "failed" or (orders.status == "in-use" and self._is_noted)) and self.take_well():
            await say(orders.epoch)
            self._is_noted = False

    def take_well(self) -> bool:
        """Whether the machine has been well for some time. Once it was said, that takes as long again."""
        well = self._well_rounds >= WELL_ROUNDS
        self._well_rounds = 0 if well else self._well_rounds
        return well

    async def first_trouble(self) -> str | None:
        """What is wrong before anything is known of what the machine is there for."""
        return await self._trouble(lent=True)

    async def _trouble(self, *, lent: bool) -> str | None:
        if await self._found(lent=lent) is None:
            return None
        await asyncio.sleep(min(AGAIN_SECONDS, self._period / 2))
        return await self._found(lent=lent)

    async def _found(self, *, lent: bool) -> str | None:
        try:
            await self._executor.check(lent=lent)
        except (WipeFailed, OSError) as error:
            return str(error)
        return None

    @property
    def _period(self) -> float:
        return self._orders.period_seconds if self._orders else 1.0

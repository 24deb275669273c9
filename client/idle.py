"""Since when nobody has used the machine: what its client says with each hello."""

import asyncio
import time
from typing import NoReturn

from client.executor import Executor
from client.protocol import Orders
from client.usage import Usage

LOOK_SECONDS = 30.0
BUSY = 0.05
"""Of one processor: a session that takes less does nothing that anybody waits for. Clocks and cursors take some."""


class Idle:
    """The use of one machine. Only a lease that is active is looked at."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._served: Orders | None = None
        self._before: tuple[float, Usage] | None = None
        self._used_at = 0.0
        self._period = 1.0
        self.seconds: int | None = None
        """For how long nobody had used it when it was looked at last; None: that is not known."""

    async def run(self) -> NoReturn:
        """Look every half minute, more often where hellos are as fast as in tests."""
        while True:
            await self.look()
            await asyncio.sleep(min(LOOK_SECONDS, 3 * self._period))

    def note(self, orders: Orders) -> None:
        """What the machine is there for now. What is known of another lease says nothing about this one."""
        self._period = orders.period_seconds
        served = orders if orders.lease_status == "active" and orders.kind in ("desktop", "job") else None
        if (served and served.epoch) != (self._served and self._served.epoch):
            self._before = self.seconds = None
        self._served = served

    async def look(self) -> None:
        """See whether somebody uses the machine: whether they touch a desktop, or have something at work."""
        if (served := self._served) is None:
            return
        usage, now = await self._usage(), time.monotonic()
        if self._served is None or self._served.epoch != served.epoch:
            return
        if usage is None:
            self.seconds = None
            return
        if self._before is None or _is_busy(*self._before, usage, now):
            self._used_at = now
        if usage.untouched_seconds is not None:
            self._used_at = max(self._used_at, now - usage.untouched_seconds)
        known = served.kind == "job" or usage.untouched_seconds is not None
        self._before, self.seconds = (now, usage), int(now - self._used_at) if known else None

    async def _usage(self) -> Usage | None:
        """What the session uses; None also where the system keeps us from looking."""
        try:
            return await self._executor.usage()
        except OSError:
            return None


def _is_busy(then: float, before: Usage, usage: Usage, now: float) -> bool:
    return usage.processor_seconds - before.processor_seconds > BUSY * (now - then)

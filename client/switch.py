"""How a machine changes its transport while it serves: as its allocator wishes, and never to one that does not answer.

The lease is in the database and the command belongs to this process, so neither minds which way the verbs go. A way
that may never answer is tried beside the present one, so that the machine is not deaf meanwhile.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self

from client.boot import Boot
from client.protocol import Assignment, Memory, Orders, Report, TransportName
from client.settings import SettingsError
from client.transport import Transport, TransportError, Unreachable

TRY_SECONDS = 60.0
"""How long a way that did not answer is left alone, unless it is the only one."""

AWAY_SECONDS = 30.0
"""How long a way must have been silent before another is taken for it: a restarted allocator is back sooner."""

MOVED_SECONDS = 120.0
"""How long PostgreSQL must have been silent before a machine that is to speak to it asks over the hub.

The port may be closed by now, if the machine was off while its fleet was moved. A fail-over takes less.
"""

ORDER: Mapping[str, tuple[str, ...]] = {"direct": ("direct",), "hub": ("hub",), "auto": ("hub", "direct")}
"""The ways of each transport, the preferred one first."""

log = logging.getLogger("lablink.client")


class Way(Transport, Protocol):
    """A Transport that is told how its machine is to speak, and can be left and taken again."""

    wish: str | None
    """The last wish that was heard: direct, hub or auto."""


class Switch:
    """A Transport that is one of several. `keep` is told what is wished for once that works.

    `ways` make them, each when it is first taken. Raises SettingsError for a first one that this machine cannot take.
    """

    def __init__(
        self,
        wish: TransportName,
        ways: Mapping[str, Callable[[], Way]],
        wake: asyncio.Event,
        keep: Callable[[str], None] = lambda name: None,
        *,
        try_seconds: float = TRY_SECONDS,
        away_seconds: float = AWAY_SECONDS,
        moved_seconds: float = MOVED_SECONDS,
    ) -> None:
        self.wake = wake
        self._ways = ways
        self._keep = keep
        self._wish: str = wish
        self._at, self._way = self._first(wish)
        self._try_seconds = try_seconds
        self._away_seconds = away_seconds
        self._moved_seconds = moved_seconds
        self._try_at = 0.0
        self._trial: asyncio.Task[tuple[str, Way] | None] | None = None
        self._heard_at = 0.0

    async def __aenter__(self) -> Self:
        self._heard_at = _now()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end_trial()
        await self._way.__aexit__(kind, error, trace)

    async def hello(self, memory: Memory, idle_seconds: int | None = None) -> Orders:
        if self._trial is None:
            self._begin_trial(memory)
        elif self._trial.done():
            await self._cross(self._trial)
        orders = await self._stay(memory, idle_seconds)
        self._heard_at = _now()
        self._heed(self._way.wish)
        return orders

    async def claim(self, epoch: int) -> Assignment:
        return await self._way.claim(epoch)

    async def report(self, report: Report) -> None:
        await self._way.report(report)

    async def cleaned(self, epoch: int) -> None:
        await self._way.cleaned(epoch)

    async def unhealthy(self, epoch: int, reason: str) -> str:
        return await self._way.unhealthy(epoch, reason)

    async def well(self, epoch: int) -> None:
        await self._way.well(epoch)

    async def booted(self, boot: Boot) -> None:
        await self._way.booted(boot)

    async def idle(self, seconds: float) -> None:
        """Also until a trial has ended: a present way that is gone would wait longer."""
        idling = asyncio.ensure_future(self._way.idle(seconds))
        try:
            await asyncio.wait({idling, self._trial or idling}, return_when=asyncio.FIRST_COMPLETED)
            if idling.done():
                idling.result()
        finally:
            idling.cancel()
            await asyncio.wait([idling])  # it may be asking something, and the next verb asks over the same connection

    def _first(self, wish: TransportName) -> tuple[str, Way]:
        """The first way of a wish that this machine can take."""
        *better, last = ORDER[wish]
        for name in better:
            with suppress(SettingsError):
                return name, self._ways[name]()
        return last, self._ways[last]()

    def _begin_trial(self, memory: Memory) -> None:
        """Say hello over the way that is wished for, if that is another one and it is time to."""
        wished = self._wished()
        if wished != self._at and _now() >= self._try_at:
            self._put_off()
            self._trial = asyncio.create_task(self._tried(wished, memory))

    async def _tried(self, name: str, memory: Memory) -> tuple[str, Way] | None:
        """A way whose first hello was answered. None: it stays as it is."""
        try:
            way = self._ways[name]()
            await _first_hello(way, memory)
        except (TransportError, SettingsError) as error:
            log.warning("transport stays", extra={"transport": self._at, "wished": name, "reason": str(error)})
            return None
        self.wake.set()
        return name, way

    async def _cross(self, trial: asyncio.Task[tuple[str, Way] | None]) -> None:
        """Take the way that has answered, if it is still wished for. It is asked again: its answer may be old."""
        self._trial = None
        if answered := trial.result():
            name, way = answered
            await (self._take(name, way) if name == self._wished() else _close(way))

    async def _end_trial(self) -> None:
        if self._trial is not None:
            self._trial.cancel()
            await asyncio.wait([self._trial])
            if not self._trial.cancelled() and (answered := self._trial.result()):
                await _close(answered[1])
            self._trial = None

    def _wished(self) -> str:
        wished = ORDER[self._wish][0]
        moved = wished == self._at == "direct" and _now() - self._heard_at > self._moved_seconds
        return "hub" if moved else wished

    async def _stay(self, memory: Memory, idle_seconds: int | None) -> Orders:
        try:
            return await self._way.hello(memory, idle_seconds)
        except Unreachable:
            others = [name for name in ORDER[self._wish] if name != self._at]
            if others and _now() - self._heard_at > self._away_seconds:
                with suppress(SettingsError):
                    await self._take(others[0], self._ways[others[0]]())
            raise

    async def _take(self, name: str, way: Way) -> None:
        """Go this way from now on; the other one is tried again after a while, if it is preferred."""
        await self._end_trial()
        await _close(self._way)
        log.info("transport", extra={"transport": name, "before": self._at})
        self._at, self._way, self._heard_at = name, way, _now()
        self._put_off()

    def _put_off(self) -> None:
        self._try_at = _now() + self._try_seconds * random.uniform(0.8, 1.2)

    def _heed(self, wish: str | None) -> None:
        """Note what is wished for: it is kept once it is so, and looked for at the next hello until then."""
        if wish is not None and wish in ORDER and wish != self._wish:
            self._wish, self._try_at = wish, 0.0
            self.wake.set()
        if self._at in ORDER[self._wish]:
            self._keep(self._wish)


async def _first_hello(way: Way, memory: Memory) -> None:
    try:
        await way.hello(memory)
    except BaseException:
        await _close(way)
        raise


async def _close(way: Way) -> None:
    await way.__aexit__(None, None, None)


def _now() -> float:
    return asyncio.get_running_loop().time()

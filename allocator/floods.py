"""Has a machine cut off that floods everybody with notifications: PostgreSQL can forbid nobody to NOTIFY."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from allocator.errors import ServiceError

WINDOW_SECONDS = 10.0

FLOOD_BYTES = 100_000
"""What one session may notify within the window; a machine that serves a lease needs some hundred bytes."""

OVERHEAD_BYTES = 250
"""What a notification weighs besides its text, since each wakes everybody: so 300 short ones are a flood as well."""

Stop = Callable[[int], Awaitable[str | None]]
"""Revokes the machine whose session has this process number and returns its name; None: nobody was revoked."""

log = structlog.get_logger()


class Floods:
    """Counts what every session notifies. Whoever hears notifications says so to `heard`."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._bytes: Counter[int] = Counter()
        self._spared: set[int] = set()
        self._suspects: asyncio.Queue[int] = asyncio.Queue()

    def heard(self, pid: int, payload: str) -> None:
        """A session sent a notification. Whoever was spared, as a busy allocator is, is let be for a window."""
        if pid in self._spared:
            return
        before = self._bytes[pid]
        self._bytes[pid] = after = before + len(payload) + OVERHEAD_BYTES
        if after // FLOOD_BYTES > before // FLOOD_BYTES:
            self._suspects.put_nowait(pid)

    async def run(self) -> None:
        """Have those stopped who flood, for ever."""
        now = asyncio.get_running_loop().time
        until = now() + WINDOW_SECONDS
        while True:
            suspect = await self._suspect(until)
            if suspect is not None:
                await self._check(suspect)
            if now() >= until:
                self._bytes.clear()
                self._spared.clear()
                until = now() + WINDOW_SECONDS

    async def _suspect(self, until: float) -> int | None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                return await self._suspects.get()
        return None

    async def _check(self, pid: int) -> None:
        """Not over the connection that hears the flood: the answer would come behind all of it."""
        try:
            hostname = await self._stop(pid)
        except ServiceError as error:  # who goes on is a suspect again
            log.warning("flood.not_stopped", process=pid, error=type(error).__name__)
        except Exception:  # the outermost loop: the next one must be stopped
            log.exception("flood.failed", process=pid)
        else:
            if hostname is None:
                self._spared.add(pid)
            log.log(logging.WARNING if hostname else logging.INFO, "flood.heard", process=pid, hostname=hostname)

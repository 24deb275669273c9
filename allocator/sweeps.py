"""Periodic duties: what happens because time passed, not because somebody asked.

Any number of allocators may sweep one database: each duty locks its row of the table `sweeps` and
does nothing when another has it.
"""

import asyncio
import time
from contextlib import suppress
from math import inf

import structlog

from allocator import standing
from allocator.config import Pool, Transport
from allocator.connection import Connect
from allocator.errors import DatabaseUnavailable, ServiceError
from allocator.metrics import Metrics
from allocator.sqlstates import translated
from allocator.standing import ACCOUNTS, DUTIES, Duty
from client.network import Connection

log = structlog.get_logger()

UNTOLD = ACCOUNTS | {"forecasts"}
"""Duties that are not worth a log line each time."""

HEAD_SECONDS = 600.0
"""How often the head of the history goes into the log, where whoever owns the database cannot change it."""


class Sweeper:
    """Does every duty once a period, on a connection of its own."""

    def __init__(
        self, connect: Connect, pool: Pool, transport: Transport, period_seconds: float, metrics: Metrics
    ) -> None:
        self._connect = connect
        self._pool = pool
        self._transport = transport
        self._period = period_seconds
        self._metrics = metrics
        self._connection: Connection | None = None
        self.contact_at = 0.0
        """Since when the database was there without a gap, on the clock of `_now`."""
        self.swept_at = 0.0
        self._head_told_at = -inf
        self._loss_is_told = False
        self.in_contact = asyncio.Event()
        """Set while the database is there and its pool is what the configuration says."""

    async def run(self) -> None:
        """Sweep for ever; a database that goes away is waited for, whatever else goes wrong is logged."""
        try:
            while True:
                await self._try_once()
                await asyncio.sleep(self._period)
        finally:
            self.close()

    async def run_once(self) -> dict[Duty, int]:
        """Do every duty; returns how many rows each changed. One that fails does not keep others waiting.

        Raises Unavailable when the database is away: then its silence is not counted as the machines'.
        """
        connection = await self._connected()
        self._note_gap()
        changed = {duty: await self._sweep(connection, duty) for duty in DUTIES}
        await self._tell_head(connection)
        return changed

    async def _try_once(self) -> None:
        try:
            await self.run_once()
        except ServiceError as error:
            self.close()
            if not self._loss_is_told:
                log.warning("sweeps.lost", error=type(error).__name__, why=error.why)
            self._loss_is_told = True
        except Exception:  # the outermost loop: sweeping must go on
            self.close()
            log.exception("sweeps.failed")

    async def _sweep(self, connection: Connection, duty: Duty) -> int:
        try:
            with translated():
                changed = await standing.sweep(connection, duty, _now() - self.contact_at)
        except ServiceError as error:
            if isinstance(error, DatabaseUnavailable):
                raise
            log.warning("sweep.failed", duty=duty, error=type(error).__name__, why=error.why)
            return 0
        self._metrics.swept(duty, changed)
        if changed and duty not in UNTOLD:
            log.info("sweep.changed", duty=duty, rows=changed)
        return changed

    async def _tell_head(self, connection: Connection) -> None:
        """Log the head of the history now and then: `lablink verify --head` takes it."""
        if _now() - self._head_told_at < HEAD_SECONDS:
            return
        with translated():
            head = await standing.history_head(connection)
        if head:
            log.info("history.head", head=str(head), events=head.events)
            self._head_told_at = _now()

    async def _connected(self) -> Connection:
        """The connection, opened if need be. From then on silent machines are counted as silent to us."""
        if self._connection is None or self._connection.is_closed():
            self.close()
            with translated():
                self._connection = await self._connect()
                self.contact_at = self.swept_at = _now()
                await standing.ensure_settings(self._connection, self._pool, self._transport)
            self.in_contact.set()
            self._loss_is_told = False
            log.info("sweeps.connected")
        return self._connection

    def _note_gap(self) -> None:
        """After this process stood still (a laptop asleep), the machines on it did too: their silence means nothing."""
        now = _now()
        if now - self.swept_at > 3 * self._period + 10:
            self.contact_at = now
        self.swept_at = now

    def close(self) -> None:
        """Let go of the connection; the next round opens another one."""
        self.in_contact.clear()
        if self._connection is not None:
            with suppress(OSError):
                self._connection.terminate()
            self._connection = None


def _now() -> float:
    """Seconds on a clock that nobody sets and that, where there is one, also runs while the computer sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()

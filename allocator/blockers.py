"""Who keeps a session waiting for a lock: whoever waits for long says so, and what can be done about it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import asyncpg

from allocator.tasks import alongside
from client.network import Connection

BETWEEN_LOOKS_SECONDS = 0.05

SAY_AFTER = 1.0
"""Seconds of waiting that need no explanation."""

BLOCKER = """
    SELECT pid, usename::text AS "user", application_name AS application,
           coalesce(extract(epoch FROM clock_timestamp() - xact_start), 0)::float8 AS seconds
    FROM pg_stat_activity WHERE pid = ANY (pg_blocking_pids($1)) ORDER BY xact_start LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Blocker:
    """A session that holds what another one waits for, and for how many seconds its transaction has been open."""

    pid: int
    user: str
    application: str | None
    seconds: float

    def __str__(self) -> str:
        return f"{self.application or 'a session'} of {self.user} (process {self.pid})"

    @property
    def advice(self) -> str:
        """That it is still there, and how an admin ends that."""
        return (
            f"{self} still holds what this needs. Have it COMMIT or ROLLBACK there, or cut it off: "
            f"lablink db shell -c 'SELECT pg_terminate_backend({self.pid})'"
        )


Tell = Callable[[Blocker], None]


@dataclass(slots=True)
class Seen:
    """Who was last seen to keep the session waiting, None for nobody; `tell` hears of each who has for long, once."""

    tell: Tell | None = None
    blocker: Blocker | None = None
    told: set[int] = field(default_factory=set)

    def note(self, found: Blocker) -> None:
        self.blocker = found
        if self.tell and found.seconds >= SAY_AFTER and found.pid not in self.told:
            self.told.add(found.pid)
            self.tell(found)


async def blocker(connection: Connection, pid: int) -> Blocker | None:
    """Who keeps that session waiting: of several, the one that has been at it for longest."""
    found = await connection.fetchrow(BLOCKER, pid)
    return Blocker(**found) if found else None


@asynccontextmanager
async def watched(dsn: str, pid: int, seen: Seen) -> AsyncIterator[None]:
    """Looks, as long as the block runs, who keeps that session waiting, and notes it in `seen`."""
    async with alongside(_watch(dsn, pid, seen)):
        yield


async def _watch(dsn: str, pid: int, seen: Seen) -> None:
    with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):  # what it is for does not depend on it
        connection = await asyncpg.connect(dsn)
        try:
            while True:
                if found := await blocker(connection, pid):
                    seen.note(found)
                await asyncio.sleep(BETWEEN_LOOKS_SECONDS)
        finally:
            connection.terminate()

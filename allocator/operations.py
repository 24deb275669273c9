"""Runs something long as a row of `operations`: one at a time, with its progress, and always with an end."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from allocator.tasks import to_its_end
from client.network import Connection

Connect = Callable[[], Awaitable[Connection]]

Tell = Callable[[int, int | None, str], Coroutine[Any, Any, None]]
"""What a long run calls as it goes: how much is done, of how much, and what it is at."""

INTERRUPTED = "interrupted"
NOT_WANTED = "Somebody else did it a moment ago."
SECONDS_BETWEEN_UPDATES = 0.5
LOOK_SECONDS = 0.5
"""Between two looks whether somebody wants an operation to end."""
LIMIT_SECONDS = 10.0
"""How long a look may take: then the connection is dead, and did not say so."""

AWAY = (
    *(OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError),
    asyncpg.TooManyConnectionsError,
)
"""What is raised while the database is away, or has no connection left."""

LOCK = "BEGIN; SET LOCAL lock_timeout = '1s'; SELECT FROM alembic_version FOR UPDATE NOWAIT"
"""Only the owner can take it, every version has it, and a migration waits for it."""
TURN_COMES = "BEGIN; SELECT FROM alembic_version FOR UPDATE"

CLOSE_LEFTOVERS = """
    UPDATE operations SET status = 'failed', finished_at = clock(), error = $1
    WHERE status = 'running' OR status = 'waiting' AND pg_try_advisory_xact_lock(54162, (id % 2147483648)::integer)
"""
STEP_ASIDE = "SELECT pg_advisory_lock(54162, ($1::bigint % 2147483648)::integer)"
"""What tells everybody that whoever waits is alive: the lock goes with the connection. The first number is ours."""

BEGIN = """
    INSERT INTO operations (kind, started_by, total) VALUES ($1, $2, $3)
    RETURNING id, to_jsonb(operations) ? 'step' AS steps
"""
"""A database that is older than this program, and is backed up before it is migrated, knows no steps and no pools."""
OF_POOL = "UPDATE operations SET pool = $2 WHERE id = $1"
PROGRESS = "UPDATE operations SET done = $2, total = $3 WHERE id = $1"
PROGRESS_WITH_STEP = "UPDATE operations SET done = $2, total = $3, step = nullif($4, '') WHERE id = $1"
FORGET_STEP = "UPDATE operations SET step = NULL WHERE id = $1"
ASIDE = "UPDATE operations SET status = 'waiting' WHERE id = $1 AND status = 'running'"
AGAIN = "UPDATE operations SET status = 'running', finished_at = NULL, error = NULL WHERE id = $1"
"""Also where it was taken for dead, because its connection was lost while it waited."""
END = """
    UPDATE operations SET status = CASE WHEN $2::text IS NULL THEN 'done' ELSE 'failed' END,
           finished_at = clock(), error = $2, result = $3
    WHERE id = $1 AND status IN ('waiting', 'running')
"""
CANCELLED_BY = "SELECT to_jsonb(operations) ->> 'cancelled_by' FROM operations WHERE id = $1"
RUNNING = """
    SELECT kind, started_by, to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') AS since,
           ' (' || (to_jsonb(operations) ->> 'step') || coalesce(', ' || done || ' of ' || total, '') || ')' AS at
    FROM operations WHERE status = 'running' ORDER BY id DESC LIMIT 1
"""


class OperationRefused(Exception):
    """Something long runs already; the message says what, who started it and when."""


@dataclass(slots=True)
class Operation:
    """One run. What it found out goes into `result`, which becomes JSON.

    `problem` says that it failed although its block ends, and more than the first line of what the block raises.
    """

    id: int
    connect: Connect
    lock: Connection
    rows: Connection
    tell: Tell | None
    steps: bool
    """Whether its row can say what it is at."""
    result: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None
    left: bool = False
    _told_at: float = 0.0
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Of whoever uses `rows`: what a transfer says of itself comes beside all else."""

    async def progress(self, done: int, total: int | None = None, what: str = "") -> None:
        """Say how far it is; written to the row twice a second at most, and when it is all done.

        While the database is away it is not written: that is no reason to stop.
        """
        if self.tell:
            await self.tell(done, total, what)
        now = time.monotonic()
        if not self.left and (now - self._told_at > SECONDS_BETWEEN_UPDATES or done == total):
            self._told_at = now
            statement, step = (PROGRESS_WITH_STEP, (what,)) if self.steps else (PROGRESS, ())
            with suppress(*AWAY):
                await self._write(statement, done, total, *step)

    async def about(self, pool: str | None) -> None:
        """Say whose machines it makes or takes away."""
        if pool is not None:
            await self._write(OF_POOL, pool)

    async def step_aside(self) -> None:
        """Let others run from now on: it only waits."""
        await self.lock.execute(STEP_ASIDE, self.id)
        await self._write(ASIDE)
        await self.lock.execute("ROLLBACK")

    async def go_on(self) -> None:
        """Return when nothing else runs: then it runs again."""
        if self.lock.is_closed():
            self.lock = await self.connect()
        await self.lock.execute(TURN_COMES)
        await self._write(AGAIN)

    async def unwanted(self) -> str:
        """Return when somebody wants it to end: who that is. A database that is away is waited for."""
        while True:
            with suppress(*AWAY):
                connection = await self.connect()
                try:
                    while not (by := await connection.fetchval(CANCELLED_BY, self.id, timeout=LIMIT_SECONDS)):  # noqa: ASYNC110
                        await asyncio.sleep(LOOK_SECONDS)
                    return str(by)
                finally:
                    connection.terminate()
            await asyncio.sleep(LOOK_SECONDS)

    async def leave(self) -> None:
        """Close its connections, because the database is about to be replaced by another that knows of the run."""
        self.left = True
        async with self._turn:
            for connection in (self.rows, self.lock):
                await connection.close()

    async def _end(self, error: str | None) -> None:
        """Write down how it ended; then let the next one begin."""
        try:
            if self.steps:
                await self._write(FORGET_STEP)
            await self._write(END, error, json.dumps(self.result, default=str) if self.result else None)
        finally:
            await self.leave()

    async def _write(self, statement: str, *values: object) -> None:
        """Change the row, on a new connection if somebody cut the idle one."""
        async with self._turn:
            if self.rows.is_closed():
                self.rows = await self.connect()
            await self.rows.execute(statement, self.id, *values)


@asynccontextmanager
async def running(
    connect: Connect,
    kind: str,
    started_by: str,
    total: int | None = None,
    *,
    tell: Tell | None = None,
    wanted: str = "SELECT true",
    pool: str | None = None,
) -> AsyncIterator[Operation]:
    """The operation that the block is: done when the block ends, failed when it raises or leaves a `problem`.

    Raises OperationRefused while another one runs, and when the query `wanted` says that there is no need for it any
    more. A block that called `leave` and succeeded is not written down. `pool` is the one whose machines it is about.
    """
    operation = await _begun(connect, wanted, tell, kind, started_by, total)
    try:
        await operation.about(pool)
        yield operation
    except BaseException as error:
        interrupted = isinstance(error, asyncio.CancelledError | KeyboardInterrupt)
        why = INTERRUPTED if interrupted else operation.problem or sentence(error)
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):  # what happened first is what is told
            await to_its_end(operation._end(why))
        raise
    if not operation.left:
        await to_its_end(operation._end(operation.problem))


async def _begun(connect: Connect, wanted: str, tell: Tell | None, *about: object) -> Operation:
    """A run that holds the lock, the only one whose row says running. One that cannot begin leaves no connection."""
    with ExitStack() as opened:
        lock, rows = await _opened(connect, opened), await _opened(connect, opened)
        await _take(lock, rows)
        await rows.execute(CLOSE_LEFTOVERS, INTERRUPTED)
        if not await rows.fetchval(wanted):
            raise OperationRefused(NOT_WANTED)
        begun = await rows.fetchrow(BEGIN, *about)
        assert begun is not None
        opened.pop_all()
    return Operation(begun["id"], connect, lock, rows, tell, begun["steps"])


async def _opened(connect: Connect, until: ExitStack) -> Connection:
    connection = await connect()
    until.callback(connection.terminate)
    return connection


async def _take(lock: Connection, rows: Connection) -> None:
    """Take the lock for as long as the connection lives."""
    try:
        await lock.execute(LOCK)
    except asyncpg.LockNotAvailableError:
        raise OperationRefused(await _who(rows)) from None


async def _who(rows: Connection) -> str:
    other = await rows.fetchrow(RUNNING)
    if other is None:
        return "The database is being migrated, or an operation begins or ends at this moment: try again."
    began = f"since {other['since']} UTC, started by {other['started_by']}{other['at'] or ''}"
    return f"One operation runs at a time, and a {other['kind']} runs {began}: try again when it has ended."


def who(part: str) -> str:
    """Who starts an operation: the part of LabLink, and the machine that it runs on."""
    return f"{part} on {socket.gethostname()}"


def sentence(error: BaseException) -> str:
    """What an operation's row says of an error: its first line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

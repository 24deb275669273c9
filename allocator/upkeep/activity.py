"""Who is connected, what they do, who waits for whom, and how large everything is; and what an admin does about it."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from client.network import Connection

SHOWN_CHARACTERS = 160
LITERAL = re.compile(r"[eE]'(?:[^'\\]|\\.|'')*(?:'|$)|'(?:[^']|'')*(?:'|$)|\$(\w*)\$.*?(?:\$\1\$|$)", re.DOTALL)

SESSIONS = """
    SELECT a.pid, a.usename::text AS role, v.hostname::text AS vm, a.application_name AS application,
           host(a.client_addr) AS address, s.ssl AS tls, a.state, a.state_change AS since,
           a.xact_start AS in_transaction, a.query, clock_timestamp() AS now
    FROM pg_stat_activity a LEFT JOIN pg_stat_ssl s USING (pid) LEFT JOIN vms v ON v.role = a.usename
    WHERE a.datname = current_database() AND a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
    ORDER BY a.usename, a.application_name, a.pid
"""

CUT = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND state = $2 AND state_change = $3
"""

WAITS = """
    SELECT a.pid, b.pid AS blocker, k.relation::regclass::text AS relation,
           extract(epoch FROM clock_timestamp() - coalesce(k.waitstart, a.query_start))::float8 AS seconds
    FROM pg_stat_activity a
    CROSS JOIN LATERAL (SELECT DISTINCT unnest(pg_blocking_pids(a.pid)) AS pid) b
    LEFT JOIN LATERAL (
        SELECT relation, waitstart FROM pg_locks WHERE pid = a.pid AND NOT granted LIMIT 1) k ON true
    WHERE a.datname = current_database() AND a.wait_event_type = 'Lock'
    ORDER BY seconds DESC, a.pid
"""

STATEMENTS = """
    SELECT query, calls, mean_exec_time / 1000 AS mean_seconds, total_exec_time / 1000 AS total_seconds, rows
    FROM pg_stat_statements WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    ORDER BY total_exec_time DESC LIMIT 20
"""

NOT_LOGGED_IN = """
    SELECT v.hostname::text, p.transport <> 'direct' AND coalesce(h.seen_at > clock() - fresh_for(), false) AS over_hub
    FROM vms v JOIN pools p ON p.name = v.pool LEFT JOIN vm_heartbeats h ON h.vm_id = v.id
    WHERE v.status NOT IN ('retired', 'failed') AND NOT EXISTS (
        SELECT FROM pg_stat_activity a WHERE a.usename = v.role AND a.datname = current_database())
    ORDER BY length(v.hostname), v.hostname
"""

LISTENING = {"lablink feed": "an allocator", "lablink-client": "a machine's client"}
"""Programs of ours that keep a LISTEN open, by application name."""


@dataclass(frozen=True, slots=True)
class Session:
    """One connection to the database. What it ran last is shown without its literals, which may be secrets."""

    pid: int
    role: str | None
    vm: str | None
    application: str
    address: str | None
    tls: bool | None
    state: str | None
    since: datetime | None
    in_transaction: datetime | None
    query: str
    now: datetime

    @property
    def who(self) -> str:
        """Who it is, in words."""
        role = self.vm or self.role or "somebody"
        program = f"{self.application} " if self.application else ""
        return f"{program}({role}, process {self.pid})"

    @property
    def state_seconds(self) -> float:
        """How long it has been in its present state."""
        return (self.now - self.since).total_seconds() if self.since else 0.0


@dataclass(frozen=True, slots=True)
class Cut:
    """A session that was to be ended: whether it was, else why not."""

    session: Session
    done: bool
    why_not: str | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """One session that waits for another."""

    pid: int
    blocker: int
    seconds: float
    what: str


@dataclass(frozen=True, slots=True)
class Statement:
    """What pg_stat_statements knows about one statement, which is shown without its literals: it leaves some in."""

    query: str
    calls: int
    mean_seconds: float
    total_seconds: float
    rows: int


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who listens as far as one can tell, which machines are not connected, and how full the queue is (0 to 1)."""

    sessions: list[Session]
    over_hub: int
    """Machines that were heard lately and are not logged in here."""
    unheard: list[str]
    queue_usage: float


async def sessions(connection: Connection) -> list[Session]:
    """Everybody who is connected to this database, we ourselves aside."""
    return [_session(row) for row in await connection.fetch(SESSIONS)]


async def left_open(connection: Connection, seconds: float) -> list[Session]:
    """Who has done nothing for that long in a transaction, which keeps the rows that it changed from everybody else."""
    return [
        each
        for each in await sessions(connection)
        if (each.state or "").startswith("idle in transaction") and each.state_seconds >= seconds
    ]


async def cut_idle(connection: Connection, older_seconds: float, *, in_transaction: bool = False) -> list[Cut]:
    """End the sessions that have been idle for that long; also those idle in a transaction, when asked.

    Listeners of ours are among them and come back by themselves.
    """
    states = ("idle", "idle in transaction", "idle in transaction (aborted)") if in_transaction else ("idle",)
    idle = [
        each
        for each in await sessions(connection)
        if each.state in states and each.since and each.state_seconds >= older_seconds
    ]
    return [await _cut(connection, each) for each in idle]


async def slow(connection: Connection, over_seconds: float) -> list[Session]:
    """Statements that have been running for at least that long, the longest first."""
    found = [
        each for each in await sessions(connection) if each.state == "active" and each.state_seconds >= over_seconds
    ]
    return sorted(found, key=lambda each: -each.state_seconds)


async def statements(connection: Connection) -> list[Statement] | None:
    """The statements that took the most time altogether; None where the server does not count them."""
    try:
        return [Statement(**_without_literals(row)) for row in await connection.fetch(STATEMENTS)]
    except (asyncpg.UndefinedTableError, asyncpg.ObjectNotInPrerequisiteStateError):
        return None


async def waits(connection: Connection) -> list[Wait]:
    """Who waits for whom, in words, the longest first."""
    known = {each.pid: each for each in await sessions(connection)}
    return [_wait(row, known) for row in await connection.fetch(WAITS)]


async def listeners(connection: Connection) -> Listeners:
    """Who listens. PostgreSQL tells nobody that: it is guessed from the program's name or its last statement."""
    found = [
        each
        for each in await sessions(connection)
        if each.application in LISTENING or each.query.lower().startswith("listen ")
    ]
    others = await connection.fetch(NOT_LOGGED_IN)
    unheard = [row["hostname"] for row in others if not row["over_hub"]]
    return Listeners(
        found, len(others) - len(unheard), unheard, await connection.fetchval("SELECT pg_notification_queue_usage()")
    )


def without_literals(query: str) -> str:
    """A statement on one line, at most 160 characters, in which every literal is '…'."""
    text = " ".join(LITERAL.sub("'…'", query).split())
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"


def _session(row: asyncpg.Record) -> Session:
    return Session(**_without_literals(row))


def _without_literals(row: asyncpg.Record) -> dict[str, Any]:
    return {**row, "query": without_literals(row["query"] or "")}


async def _cut(connection: Connection, session: Session) -> Cut:
    """Ends it unless it went on working since it was looked at."""
    try:
        done = await connection.fetchval(CUT, session.pid, session.state, session.since)
    except asyncpg.InsufficientPrivilegeError:
        return Cut(session, False, "it is a superuser's, or the owner lacks pg_signal_backend")
    return Cut(session, bool(done), None if done else "it works again, or is gone")


def _wait(row: asyncpg.Record, known: dict[int, Session]) -> Wait:
    waiting, blocker = known.get(row["pid"]), known.get(row["blocker"])
    who = waiting.who if waiting else f"process {row['pid']}"
    by = blocker.who if blocker else f"process {row['blocker']}"
    lock = f"a lock on {row['relation']}" if row["relation"] else "a row that another transaction changed"
    doing = f", which is {blocker.state}, last at: {blocker.query}" if blocker else ""
    seconds = max(0.0, row["seconds"] or 0.0)
    return Wait(
        row["pid"], row["blocker"], seconds, f"{who} has waited {seconds:.0f} s for {lock}, held by {by}{doing}"
    )

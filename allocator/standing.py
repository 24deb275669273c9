"""What the feed and the sweeps ask, each on the one connection that it keeps."""

import json
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Literal
from uuid import UUID

from allocator import config
from allocator.connection import PooledConnection
from allocator.pool_views import Counts, PoolStatus
from allocator.views import FACTS, PLACE, HistoryHead, LeaseView, Place
from client.network import Connection
from client.protocol import CHANNEL

LEASE_CHANNEL = "lease_updates"
"""PostgreSQL channel on which changed leases are hinted at; only allocators listen to it."""

CHANNELS = (CHANNEL, LEASE_CHANNEL)

AT_ONCE = 100
"""How many are looked at together, so that nobody else waits for thousands."""

OPENED = f"SELECT {FACTS}, o.token_sha256 FROM opened_leases($1, $2) o JOIN lease_views v USING (id)"
PLACES = f"SELECT id, {', '.join(PLACE)}, paused, clock() FROM lease_views WHERE id = ANY ($1) AND status = 'queued'"
COUNTS = "SELECT c.*, EXISTS (SELECT FROM pools WHERE name = $1 AND paused) AS paused FROM pool_counts($1) c"

Duty = Literal[
    "deadlines",
    "lost",
    "queue",
    "secrets",
    "roles",
    "seal",
    "months",
    "usage",
    "forecasts",
    "schedules",
    "budgets",
    "idle",
]

DUTIES: dict[Duty, str] = {
    "deadlines": "sweep_deadlines()",
    "lost": "sweep_lost($1)",
    "queue": "sweep_queue()",
    "secrets": "sweep_secrets()",
    "roles": "sweep_roles()",
    "seal": "sweep_seal()",
    "months": "sweep_months()",
    "usage": "sweep_usage()",
    "forecasts": "sweep_forecasts()",
    "schedules": "sweep_schedules()",
    "budgets": "sweep_budgets()",
    "idle": "sweep_idle()",
}
"""Each duty's function, which returns how many rows it changed."""

ACCOUNTS: frozenset[Duty] = frozenset({"seal", "usage", "budgets"})
"""Duties that keep accounts: nobody waits for what they write."""


async def listen(connection: Connection, hear: Callable[[int, str, str], None]) -> None:
    """Have `hear(pid, channel, payload)` called for every notification. Read after this returns, not before."""
    for channel in CHANNELS:
        await connection.add_listener(channel, lambda _connection, pid, name, payload: hear(pid, name, str(payload)))


async def still_listens(connection: Connection, seconds: float) -> bool:
    """Whether the connection answers within `seconds` and kept its LISTENs (a pooler or DISCARD ALL takes them)."""
    rows = await connection.fetch("SELECT pg_listening_channels() AS channel", timeout=seconds)
    return {row["channel"] for row in rows} >= set(CHANNELS)


async def read_leases(connection: Connection, ids: Collection[UUID]) -> list[LeaseView]:
    """These leases as they are now; those that are gone are left out."""
    rows = await connection.fetch(f"SELECT {FACTS} FROM lease_views WHERE id = ANY ($1)", list(ids))
    return await _in_line(connection, [LeaseView.of(dict(row)) for row in rows])


async def read_opened(
    connection: PooledConnection, shown: Sequence[tuple[UUID, bytes]]
) -> list[tuple[LeaseView, bytes]]:
    """Those of these leases that the hash beside them opens, with it."""
    rows = await connection.fetch(OPENED, [lease_id for lease_id, _ in shown], [hashed for _, hashed in shown])
    leases = await _in_line(connection, [LeaseView.of(dict(row)) for row in rows])
    return [(lease, row["token_sha256"]) for lease, row in zip(leases, rows, strict=True)]


async def _in_line(connection: Connection | PooledConnection, leases: Sequence[LeaseView]) -> list[LeaseView]:
    """The same, with their places where they wait: only then is the queue looked at."""
    waiting = [lease.id for lease in leases if lease.status == "queued"]
    places = dict(await read_places(connection, waiting)) if waiting else {}
    return [lease.at(places[lease.id]) if lease.id in places else lease for lease in leases]


async def read_places(connection: Connection | PooledConnection, ids: Collection[UUID]) -> list[tuple[UUID, Place]]:
    """Where those of these leases are that wait, in one look at the queue."""
    return [(row[0], Place(*row[1:])) for row in await connection.fetch(PLACES, list(ids))]


async def each_place(connection: Connection, ids: Collection[UUID]) -> AsyncIterator[tuple[UUID, Place]]:
    """As `read_places`, AT_ONCE at a time: whoever asks for a machine would wait until thousands are taken apart."""
    async with connection.transaction(readonly=True):
        async for row in connection.cursor(PLACES, list(ids), prefetch=AT_ONCE):
            yield row[0], Place(*row[1:])


async def read_counts(connection: Connection | PooledConnection, pool: str) -> Counts:
    """The pool at a glance."""
    row = await connection.fetchrow(COUNTS, pool)
    assert row is not None
    return Counts(**row)


async def read_pools(connection: Connection | PooledConnection) -> list[PoolStatus]:
    """Every pool as everybody may see it."""
    return [PoolStatus(**row) for row in await connection.fetch("SELECT * FROM pool_status()")]


async def ensure_settings(connection: Connection, pool: config.Pool, transport: config.Transport) -> None:
    """Make the pool what the configuration says; its machines notice by themselves how they are to speak."""
    settings = pool.model_dump(mode="json", by_alias=True, exclude={"name"}) | {"transport": transport.mode}
    await connection.execute("SELECT ensure_settings($1, $2)", pool.name, json.dumps(settings))


async def sweep(connection: Connection, duty: Duty, contact_seconds: float) -> int:
    """Do one periodic duty; returns how many rows it changed (0 also when another allocator is at it)."""
    arguments = (contact_seconds,) if duty == "lost" else ()
    return int(await connection.fetchval(f"SELECT {DUTIES[duty]}", *arguments))


async def history_head(connection: Connection) -> HistoryHead | None:
    """The newest seal of the history; None before the first."""
    row = await connection.fetchrow("SELECT * FROM history_head()")
    return HistoryHead(**row) if row else None

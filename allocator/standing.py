"""What the feed and the sweeps ask, each on the one connection that it keeps."""

from collections.abc import Callable, Collection
from typing import Literal
from uuid import UUID

from allocator import config
from allocator.connection import PooledConnection
from allocator.views import Counts, HistoryHead, LeaseView
from client.network import Connection
from client.protocol import CHANNEL

LEASE_CHANNEL = "lease_updates"
"""PostgreSQL channel on which changed leases are hinted at; only allocators listen to it."""

CHANNELS = (CHANNEL, LEASE_CHANNEL)

Duty = Literal["deadlines", "lost", "queue", "secrets", "roles", "seal", "months", "usage"]

DUTIES: dict[Duty, str] = {
    "deadlines": "SELECT sweep_deadlines()",
    "lost": "SELECT sweep_lost($1)",
    "queue": "SELECT sweep_queue()",
    "secrets": "SELECT sweep_secrets()",
    "roles": "SELECT sweep_roles()",
    "seal": "SELECT sweep_seal()",
    "months": "SELECT sweep_months()",
    "usage": "SELECT sweep_usage()",
}


async def listen(connection: Connection, hear: Callable[[int, str, str], None]) -> None:
    """Have `hear(pid, channel, payload)` called for every notification. Read after this returns, not before."""
    for channel in CHANNELS:
        await connection.add_listener(channel, lambda _connection, pid, name, payload: hear(pid, name, str(payload)))


async def still_listens(connection: Connection, seconds: float) -> bool:
    """Whether the connection answers within `seconds` and kept its LISTENs (a pooler or DISCARD ALL takes them)."""
    rows = await connection.fetch("SELECT pg_listening_channels() AS channel", timeout=seconds)
    return {row["channel"] for row in rows} >= set(CHANNELS)


async def read_leases(connection: Connection, ids: Collection[UUID]) -> list[LeaseView]:
    """These leases as they are now, in one statement; those that are gone are left out."""
    rows = await connection.fetch("SELECT *, clock() AS now FROM lease_views WHERE id = ANY ($1)", list(ids))
    return [LeaseView.of(dict(row)) for row in rows]


async def read_counts(connection: Connection | PooledConnection, pool: str) -> Counts:
    """The pool at a glance."""
    row = await connection.fetchrow("SELECT * FROM pool_counts($1)", pool)
    assert row is not None
    return Counts(**row)


async def ensure_pool(connection: Connection, pool: config.Pool) -> None:
    """Make the pool what the configuration says."""
    accepts, limits = (
        (pool.desktop, list(pool.programs)),
        (pool.lease_seconds, pool.command_seconds, pool.queue_seconds),
    )
    await connection.execute("SELECT ensure_pool($1, $2, $3, $4, $5, $6)", pool.name, *accepts, *limits)


async def ensure_transport(connection: Connection, pool: config.Pool, transport: config.Transport) -> None:
    """Make the pool's transport what the configuration says; its machines notice by themselves."""
    await connection.execute("SELECT ensure_transport($1, $2)", pool.name, transport.mode)


async def sweep(connection: Connection, duty: Duty, contact_seconds: float) -> int:
    """Do one periodic duty; returns how many rows it changed (0 also when another allocator is at it)."""
    arguments = (contact_seconds,) if duty == "lost" else ()
    return int(await connection.fetchval(DUTIES[duty], *arguments))


async def history_head(connection: Connection) -> HistoryHead | None:
    """The newest seal of the history; None before the first."""
    row = await connection.fetchrow("SELECT * FROM history_head()")
    return HistoryHead(**row) if row else None

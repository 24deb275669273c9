"""What an admin asks of the database from the command line: one function a question, each one statement."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar
from uuid import UUID

from allocator.cli.failures import CommandFailed, NotThere
from allocator.invitations import invite_vm
from allocator.tokens import sha256
from client.network import Connection

Row = dict[str, Any]
T = TypeVar("T")

NO_VM = "There is no VM {}, or it was invited and has not enrolled yet. See which there are: lablink vms list --all"

NOTHING_TO_TELL = (
    "There is no machine, no pool and no lease {}. See which there are: lablink vms list, pools list, leases list --all"
)

VM = """
    SELECT v.hostname, v.status, v.email, l.status AS lease_status, v.crd_command, v.lease_id, v.pool,
           coalesce(v.reason, unwell(v)) AS reason,
           v.epoch, h.seen_at, h.used_at, v.updated_at, v.created_at, v.id, v.draining,
           CASE WHEN v.role IN (SELECT usename FROM pg_stat_activity WHERE datname = current_database()) THEN 'direct'
                WHEN h.seen_at > clock() - fresh_for() THEN 'hub' END AS transport,
           p.transport AS transport_wished
    FROM vms v JOIN pools p ON p.name = v.pool
    LEFT JOIN vm_heartbeats h ON h.vm_id = v.id LEFT JOIN leases l ON l.id = v.lease_id
"""

LEASE = """
    SELECT l.id, l.email, l.status, l.hostname, l.crd_command, l.kind, l.pool, l.exit_code, l.failure, l.trouble,
           l.left_idle, l.output, l.created_at, l.assigned_at, l.active_at, l.ended_at, l.expires_at, l.vm_id, l.epoch,
           CASE WHEN l.live THEN l.expires_at END AS ends_at, v.position, v.held_back, v.needs_line, v.passed_over,
           clock() + make_interval(secs => v.eta_seconds) AS likely_at,
           clock() + make_interval(secs => v.eta_p90_seconds) AS sure_at, v.kept_until, v.idle_until, v.moves
    FROM leases l JOIN lease_views v ON v.id = l.id
"""

ID = re.compile(r"[0-9A-Fa-f][0-9A-Fa-f-]*")
BY_ID = "WHERE starts_with(l.id::text, lower($1)) LIMIT 2"
BY_PERSON = "WHERE lower(l.email) = lower($1) ORDER BY l.live DESC, l.place DESC LIMIT 2"

Act = Literal["fail", "drain", "return", "release", "retire", "rotate", "revoke"]

ACTS: dict[Act, str] = {
    "fail": "SELECT fail_vm($1, $2)",
    "drain": "SELECT drain_vm($1)",
    "return": "SELECT return_vm($1)",
    "release": "SELECT release_vm($1)",
    "retire": "SELECT retire_vm($1)",
    "rotate": "SELECT rotate_vm($1)",
    "revoke": "SELECT revoke_vm($1)",
}
"""What an admin does with a machine; each answers with the status that it has then."""

EVENT = "SELECT e.id, e.at, e.actor, e.db_role, e.kind, e.hostname, e.lease_id, e.detail FROM events e"


async def limit_lock_waits(connection: Connection, seconds: float) -> None:
    """Let no statement of this connection wait longer for a lock than that."""
    await connection.execute("SELECT set_config('lock_timeout', $1, false)", f"{seconds}s")


async def invite(connection: Connection, hostname: str, pool: str, seconds: int) -> str:
    """A join token for a machine of that name. Raises CommandFailed for one of the fleet, and what asyncpg does."""
    if await _value(connection, bool, "SELECT EXISTS (SELECT FROM fleet_vms WHERE hostname = $1)", hostname):
        raise CommandFailed(f"{hostname} is of the fleet, which invites its own: lablink fleet replace {hostname}")
    return await invite_vm(connection, hostname, pool, seconds)


async def clock(connection: Connection) -> datetime:
    """The database's time, which every other time is told against."""
    return await _value(connection, datetime, "SELECT clock()")


async def vms(connection: Connection, *, retired: bool = False) -> list[Row]:
    """Every machine by name; the retired ones only when asked for."""
    query = f"{VM} WHERE $1 OR v.status <> 'retired' ORDER BY length(v.hostname), v.hostname"
    return await _rows(connection, query, retired)


async def find_vm(connection: Connection, hostname: str) -> Row | None:
    """The machine of that name, if there is one."""
    found = await _rows(connection, f"{VM} WHERE v.hostname = $1", hostname)
    return found[0] if found else None


async def vm(connection: Connection, hostname: str) -> Row:
    """The machine of that name; raises NotThere."""
    found = await find_vm(connection, hostname)
    if not found:
        raise NotThere(NO_VM.format(hostname))
    return found


async def last_boot(connection: Connection, vm: int) -> Row | None:
    """How long the machine's last boot took, by phase, and what half and nine tenths of its pool's boots take."""
    found = await _rows(
        connection,
        "SELECT b.at, b.seconds::float8, b.phases, t.p50_seconds::float8, t.p90_seconds::float8 "
        "FROM boots b LEFT JOIN boot_times t USING (pool) WHERE b.vm_id = $1 ORDER BY b.at DESC LIMIT 1",
        vm,
    )
    return found[0] if found else None


async def check_known(connection: Connection, hostname: str) -> None:
    """Raises NotThere unless a machine of that name is, was or was invited."""
    query = "SELECT EXISTS (SELECT FROM vms WHERE hostname = $1) OR EXISTS (SELECT FROM events WHERE hostname = $1)"
    if not await _value(connection, bool, query, hostname):
        raise NotThere(NO_VM.format(hostname))


async def act_on_vm(connection: Connection, act: Act, hostname: str, *details: str) -> str:
    """Do that with a machine. Returns its new status."""
    return await _value(connection, str, ACTS[act], hostname, *details)


async def disconnect_vm(connection: Connection, hostname: str) -> int:
    """End the sessions of a machine. Returns how many."""
    return await _value(connection, int, "SELECT disconnect_vm($1)", hostname)


async def leases(connection: Connection, *, everything: bool, limit: int) -> list[Row]:
    """The live leases, those that wait first; or the newest `limit` of all."""
    if everything:
        return await _rows(connection, f"{LEASE} ORDER BY l.place DESC LIMIT $1", limit)
    return await _rows(connection, f"{LEASE} WHERE l.live ORDER BY l.status = 'queued' DESC, l.place LIMIT $1", limit)


async def lease(connection: Connection, name: str) -> Row:
    """The lease whose id begins with `name`, or that a person of that name has, or had last.

    Raises NotThere, and CommandFailed where more than one is meant: a database user may have lent itself several.
    """
    found = await _rows(connection, f"{LEASE} {BY_ID}", name) if ID.fullmatch(name) else []
    if not found:
        of_person = await _rows(connection, f"{LEASE} {BY_PERSON}", name)
        found = [row for row in of_person if row["ended_at"] is None] or of_person[:1]
    if not found:
        raise NotThere(f"There is no lease {name!r}. See which there are: lablink leases list --all")
    if len(found) > 1:
        raise CommandFailed(f"More than one lease is meant by {name!r}: give more of its id.")
    return found[0]


async def why(connection: Connection, name: str) -> list[Row]:
    """Of each condition whether it holds, for the machine or pool of that name, or for the lease that `lease` finds.

    Raises NotThere, and what `lease` does.
    """
    if await find_vm(connection, name):
        return await _rows(connection, "SELECT * FROM why_vm($1)", name)
    if await _value(connection, bool, "SELECT EXISTS (SELECT FROM pools WHERE name = $1)", name):
        return await _rows(connection, "SELECT * FROM why_pool($1)", name)
    try:
        found = await lease(connection, name)
    except NotThere:
        raise NotThere(NOTHING_TO_TELL.format(repr(name))) from None
    return await _rows(connection, "SELECT * FROM why_lease($1)", found["id"])


async def end_lease(connection: Connection, lease: UUID) -> str:
    """End a lease, whatever step it is at. Returns its new status."""
    return await _value(connection, str, "SELECT end_lease($1)", lease)


async def add_admin(connection: Connection, name: str, token: str, days: int) -> datetime:
    """Let whoever has the token in over HTTP as that admin. Returns until when."""
    return await _value(connection, datetime, "SELECT add_admin($1, $2, $3)", name, sha256(token), days)


async def remove_admin(connection: Connection, name: str) -> None:
    """Let them in no more."""
    await connection.execute("SELECT remove_admin($1)", name)


async def admins(connection: Connection) -> list[Row]:
    """Whoever may come as an admin over HTTP, or might until lately."""
    query = (
        "SELECT name, created_at, expires_at, last_used_at, expires_at <= clock() AS expired FROM admins ORDER BY name"
    )
    return await _rows(connection, query)


async def newest_events(
    connection: Connection, limit: int, *, hostname: str | None = None, lease_id: UUID | None = None
) -> list[Row]:
    """The last `limit` events, oldest first; of one machine or one lease when given."""
    query = f"""
        SELECT * FROM ({EVENT} WHERE ($2::text IS NULL OR e.hostname = $2) AND ($3::uuid IS NULL OR e.lease_id = $3)
                       ORDER BY e.id DESC LIMIT $1) AS newest ORDER BY id
    """
    return await _rows(connection, query, limit, hostname, lease_id)


async def last_event(connection: Connection) -> int:
    """The highest id of an event; 0 when nothing has happened yet."""
    return await _value(connection, int, "SELECT coalesce(max(id), 0) FROM events")


async def events_after(connection: Connection, last: int, missing: Sequence[int] = ()) -> list[Row]:
    """At most 1,000 events after id `last`, and those of the ids `missing` that are there by now; lowest id first."""
    query = f"{EVENT} WHERE e.id > $1 OR e.id = ANY ($2) ORDER BY e.id LIMIT 1000"
    return await _rows(connection, query, last, missing)


async def _rows(connection: Connection, query: str, *arguments: object) -> list[Row]:
    return [dict(row) for row in await connection.fetch(query, *arguments)]


async def _value(connection: Connection, kind: type[T], query: str, *arguments: object) -> T:
    value = await connection.fetchval(query, *arguments)
    assert isinstance(value, kind)
    return value

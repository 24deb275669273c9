"""What the commands about pools and schedules ask of the database: one function a question, each one statement."""

from dataclasses import dataclass
from datetime import date, time
from typing import Any

from allocator.cli.failures import NotThere
from client.network import Connection

Row = dict[str, Any]

POOLS = """
    SELECT s.name, s.free, s.lent, s.coming, s.waiting, s.wanted, p.min_machines, p.max_machines, p.spare_machines,
           s.paused, growth_stopped(s.name) AS stopped, s.hours,
           m.spent::float8, m.promised::float8, p.budget::float8, p.currency
    FROM pool_status() s JOIN pools p ON p.name = s.name LEFT JOIN pool_spending m ON m.pool = s.name
"""
SCHEDULES = """
    SELECT s.pool, s.name, s.days, s.on_date, s.starts_at::text, s.ends_at::text, s.time_zone,
           s.machines, s.ends_leases,
           (SELECT min(h.made_from) FROM scheduled(s.pool, size_of(s.pool)) h WHERE h.name = s.name) AS made_from
    FROM pool_schedules s ORDER BY s.pool <> 'default', s.pool, s.name
"""
ADD_SCHEDULE = """
    INSERT INTO pool_schedules (pool, name, machines, days, on_date, starts_at, ends_at, time_zone, ends_leases)
    SELECT (pool_named($1)).name, $2, $3, $4, $5, $6, $7, $8, $9
"""
NEXT = """
    SELECT format('%s from %s until %s (%s)%s', counted(h.machines, 'machine'),
                  to_char(h.begins AT TIME ZONE h.time_zone, 'FMDy FMDD Mon YYYY HH24:MI'),
                  to_char(h.ends AT TIME ZONE h.time_zone, 'HH24:MI'), h.time_zone,
                  CASE WHEN h.ends_leases THEN '; leases end then' ELSE '' END)
    FROM scheduled($1, size_of($1)) h WHERE h.name = $2 ORDER BY h.begins LIMIT 1
"""
REMOVE_SCHEDULE = "DELETE FROM pool_schedules WHERE pool = $1 AND name = $2 RETURNING name"


@dataclass(frozen=True, slots=True)
class Hours:
    """When a schedule is: on days of the week or on one date, by the clocks of a time zone (None: the pool's)."""

    days: list[str] | None
    on_date: date | None
    starts_at: time
    ends_at: time
    time_zone: str | None
    ends_leases: bool


async def pools(connection: Connection) -> list[Row]:
    """Each pool: its machines, how many are wanted, its limits, and what keeps it from growing."""
    return [dict(row) for row in await connection.fetch(POOLS)]


async def pause_pool(connection: Connection, name: str, *, paused: bool) -> None:
    """Pause a pool, or let it go on; refused as the database does when there is none."""
    await connection.execute("SELECT pause_pool($1, $2)", name, paused)


async def schedules(connection: Connection) -> list[Row]:
    """Every schedule, and from when on machines are made for it next."""
    return [dict(row) for row in await connection.fetch(SCHEDULES)]


async def add_schedule(connection: Connection, pool: str, name: str, machines: int, hours: Hours) -> str | None:
    """Write it down. Returns what it asks for next, in words; None when that is nothing any more."""
    when = hours.days, hours.on_date, hours.starts_at, hours.ends_at, hours.time_zone
    await connection.execute(ADD_SCHEDULE, pool, name, machines, *when, hours.ends_leases)
    planned = await connection.fetchval(NEXT, pool, name)
    return None if planned is None else str(planned)


async def most_machines(connection: Connection, pool: str) -> int | None:
    """How many machines a pool may become by itself; None: it is as large as it is made by hand."""
    most: int | None = await connection.fetchval("SELECT max_machines FROM pools WHERE name = $1", pool)
    return most


async def remove_schedule(connection: Connection, pool: str, name: str) -> None:
    """Forget it. Raises NotThere."""
    if await connection.fetchval(REMOVE_SCHEDULE, pool, name) is None:
        raise NotThere(f"Pool {pool} has no schedule {name}. See which there are: lablink schedules list")

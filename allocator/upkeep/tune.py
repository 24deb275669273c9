"""What PostgreSQL should be set to on a machine of a given size, with a word why: the guide's figures, computed."""

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from client.network import Connection

KB, MB, GB = 1 << 10, 1 << 20, 1 << 30
UNITS = {"B": 1, "kB": KB, "8kB": 8 * KB, "MB": MB, "GB": GB}
LEAST_RAM = 256 * MB

MACHINES = """
    SELECT count(*) FROM vms v JOIN pools p ON p.name = v.pool WHERE v.status <> 'retired' AND p.transport <> 'hub'
"""
PRESENT = "SELECT name, setting, unit, context, pending_restart FROM pg_settings WHERE name = ANY ($1)"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as it should be, and why."""

    name: str
    value: str
    why: str


@dataclass(frozen=True, slots=True)
class Compared:
    """A setting beside what the server has; `restart` when a change needs one."""

    name: str
    value: str
    why: str
    now: str | None
    fits: bool
    restart: bool


@dataclass(frozen=True, slots=True)
class Applied:
    """What was set: names, those among them that need a restart, and those that the server refused, with its words."""

    set: list[str]
    restart: list[str]
    refused: dict[str, str]


async def machines(connection: Connection) -> int:
    """How many machines there are that may connect, which those that are to speak over the hub do not."""
    return int(await connection.fetchval(MACHINES))


async def max_connections(connection: Connection) -> int:
    """How many connections the server allows."""
    return int(await connection.fetchval("SELECT current_setting('max_connections')"))


def connections_for(machines: int) -> int:
    """Connections for that many machines in direct mode, each of which has two for a moment when it reconnects."""
    return max(100, 2 * machines + 40)


def recommended(ram: int, connections: int = 100, storage: str = "ssd") -> list[Setting]:
    """For `ram` bytes, on an "ssd" or "hdd". At 2 GB, 100 connections and SSD the settings are the guide's."""
    buffers = ram // 4
    work = max(256 * KB, (ram - buffers) // (connections * 3))
    fast = storage == "ssd"
    return [
        Setting("max_connections", str(connections), "one a machine, two while it reconnects, and 40 for all others"),
        Setting("shared_buffers", in_units(buffers), "a quarter of memory: PostgreSQL's own cache"),
        Setting("effective_cache_size", in_units(ram // 2), "half of memory: what it may expect the system to cache"),
        Setting("work_mem", in_units(work), "a third of the rest, shared by all connections: each sort or hash"),
        Setting("maintenance_work_mem", in_units(min(ram // 16, 2 * GB)), "a sixteenth: vacuum, index builds, restore"),
        Setting("wal_buffers", in_units(min(16 * MB, buffers // 32)), "holds what commits write together"),
        Setting("min_wal_size", "1GB", "log files are reused, not made anew"),
        Setting("max_wal_size", "4GB", "checkpoints come by the clock, not because of a bulk change"),
        Setting("checkpoint_completion_target", "0.9", "a checkpoint's writes are spread out"),
        Setting("default_statistics_target", "100", "how closely the planner looks at columns"),
        Setting("random_page_cost", "1.1" if fast else "4", "what a read out of order costs on this disk"),
        Setting("effective_io_concurrency", "200" if fast else "2", "how many reads this disk takes at once"),
    ]


async def compared(connection: Connection, settings: Sequence[Setting]) -> list[Compared]:
    """Each setting beside what the server has."""
    names = [each.name for each in settings]
    present = {row["name"]: row for row in await connection.fetch(PRESENT, names)}
    return [_compared(each, present.get(each.name)) for each in settings]


async def apply(connection: Connection, wanted: Sequence[Compared]) -> Applied:
    """ALTER SYSTEM for what differs, then a reload. `connection` is a superuser's; a refusal is kept."""
    done = Applied([], [], {})
    for each in (each for each in wanted if not each.fits):
        try:
            await connection.execute(as_sql(each.name, each.value))
        except asyncpg.PostgresError as error:
            done.refused[each.name] = str(error)
            continue
        (done.restart if each.restart else done.set).append(each.name)
    if done.set or done.restart:
        await connection.execute("SELECT pg_reload_conf()")
    return done


def as_sql(name: str, value: str) -> str:
    """The statement that sets it, from the next reload or restart on."""
    return f"ALTER SYSTEM SET {name} = '{value}'"


def as_conf(settings: Sequence[Setting]) -> str:
    """A file for PostgreSQL's conf.d or the end of postgresql.conf."""
    lines = [f"{each.name} = {each.value}" for each in settings]
    width = max(len(line) for line in lines)
    return "\n".join(f"{line:<{width}}  # {each.why}" for line, each in zip(lines, settings, strict=True))


def _compared(wanted: Setting, row: asyncpg.Record | None) -> Compared:
    if row is None:
        return Compared(wanted.name, wanted.value, wanted.why, None, False, True)
    now = float(row["setting"]) * UNITS.get(row["unit"] or "B", 1)
    shown = in_units(int(now)) if row["unit"] in UNITS else row["setting"]
    fits = abs(now - number(wanted.value)) <= 8 * KB * (row["unit"] in UNITS)
    restart = row["context"] == "postmaster"
    return Compared(wanted.name, wanted.value, wanted.why, shown, fits, restart)


def number(value: str) -> float:
    """A value as written here, in bytes or as the number that it is."""
    digits = value.rstrip("kMGB")
    return float(digits) * UNITS[value[len(digits) :] or "B"]


def in_units(count: int) -> str:
    """Bytes as PostgreSQL takes them, in the largest unit of which it is more than a few, rounded down."""
    for unit in ("GB", "MB"):
        if count % UNITS[unit] == 0 or count >= 4 * UNITS[unit]:
            return f"{count // UNITS[unit]}{unit}" if count >= UNITS[unit] else "0"
    return f"{count // KB}kB"

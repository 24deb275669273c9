"""The fleet's record in the database: which machines are wanted, and which instances they are."""

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from allocator.connection import PROBES
from allocator.operations import Connect
from client.network import Connection, KeptAlive, hang_up

CONNECT_SECONDS = 10.0

WANTED = (
    "SELECT hostname, pool, ami_id, instance_type, subnet_id, disk_gb FROM fleet_vms WHERE wanted ORDER BY hostname"
)
UNWANTED = "SELECT hostname FROM fleet_status WHERE NOT wanted AND status IS DISTINCT FROM 'in-use'"
STATUS = "SELECT * FROM fleet_status"
HELD = "SELECT * FROM held_vms($1)"
LEAVE = "UPDATE fleet_vms SET wanted = false WHERE hostname = ANY ($1)"
FORGET = "DELETE FROM fleet_vms WHERE hostname = ANY ($1) AND instance_id IS NULL"
INVITED = "UPDATE fleet_vms SET invited_at = clock() WHERE hostname = ANY ($1)"
ENDED_WELL = """
    SELECT coalesce((SELECT status = 'done' FROM operations WHERE kind ~ '^fleet (apply|grow|shrink|replace|destroy)$'
                     AND finished_at IS NOT NULL ORDER BY finished_at DESC, id DESC LIMIT 1), true)
"""
LEAVERS = "SELECT hostname FROM leaving_order($2) LIMIT $1"


@dataclass(frozen=True, slots=True)
class Held:
    """A machine that somebody is on."""

    hostname: str
    words: str
    """Who, and until when."""


def owners(dsn: str, actor: str) -> Connect:
    """How to connect as the owner, for work that the history ascribes to `actor`."""
    settings = {"application_name": "lablink fleet", "lablink.actor": actor, "statement_timeout": "60s", **PROBES}
    return lambda: asyncpg.connect(dsn, timeout=CONNECT_SECONDS, server_settings=settings, connection_class=KeptAlive)


@asynccontextmanager
async def opened(connect: Connect) -> AsyncIterator[Connection]:
    """A connection for the time of the block."""
    connection = await connect()
    try:
        yield connection
    finally:
        await hang_up(connection, CONNECT_SECONDS)


async def wanted(connection: Connection) -> dict[str, dict[str, Any]]:
    """The machines that are wanted, as Terraform is told them: what is not set is left out."""
    rows = await connection.fetch(WANTED)
    return {
        row["hostname"]: {key: value for key, value in row.items() if value is not None and key != "hostname"}
        for row in rows
    }


async def unwanted(connection: Connection) -> list[str]:
    """The machines that go with the next apply and that nobody is on."""
    return [row["hostname"] for row in await connection.fetch(UNWANTED)]


async def status(connection: Connection) -> list[Mapping[str, Any]]:
    """Every machine of the fleet, as the view fleet_status shows it."""
    return [dict(row) for row in await connection.fetch(STATUS)]


async def held(connection: Connection, hostnames: Sequence[str]) -> list[Held]:
    """Those of the machines that somebody is on."""
    rows = await connection.fetch(HELD, list(hostnames))
    return [Held(row["hostname"], f"{row['hostname']}: {row['email']}{_until(row['expires_at'])}") for row in rows]


async def grow(connection: Connection, number: int, pool: str, prefix: str, **like: object) -> list[str]:
    """Want so many more; returns all that are to be made. `like` gives ami_id, instance_type and disk_gb."""
    kind = (like.get("ami_id"), like.get("instance_type"), like.get("disk_gb"))
    return list(await connection.fetchval("SELECT grow_fleet($1, $2, $3, $4, $5, $6)", number, pool, prefix, *kind))


async def forget(connection: Connection, hostnames: Sequence[str]) -> None:
    """Want none of these that was not made."""
    await connection.execute(FORGET, list(hostnames))


async def shrink(connection: Connection, number: int, pool: str | None) -> list[str]:
    """Want so many fewer, none of which is somebody's; returns all that are to go."""
    return list(await connection.fetchval("SELECT shrink_fleet($1, $2)", number, pool))


async def leavers(connection: Connection, number: int, pool: str | None) -> list[str]:
    """Whom a shrink lets go that waits for people, those that are unwanted already among them.

    Nobody where there are too few: the shrink refuses that, and nobody is waited for in vain.
    """
    rows = await connection.fetch(LEAVERS, number, pool)
    return [row["hostname"] for row in rows] if len(rows) == number else []


async def leave(connection: Connection, hostnames: Sequence[str]) -> None:
    """Want these machines no more."""
    await connection.execute(LEAVE, list(hostnames))


async def retire(connection: Connection, hostnames: Sequence[str]) -> list[str]:
    """Retire them all; or none, where somebody is on one: those are returned."""
    return list(await connection.fetchval("SELECT retire_idle_vms($1)", list(hostnames)))


async def lose(connection: Connection, instances: Sequence[str]) -> list[str]:
    """These instances are gone: their machines are retired, their people told. Returns the machines."""
    return list(await connection.fetchval("SELECT lose_instances($1)", list(instances))) if instances else []


async def repairs(connection: Connection, cool_down_seconds: float) -> dict[str, list[str]]:
    """Which machines are to be rebooted, and which replaced: the names under `reboot` and `replace`."""
    found: dict[str, list[str]] = {"reboot": [], "replace": []}
    for row in await connection.fetch("SELECT * FROM fleet_repairs($1)", cool_down_seconds):
        found[row["act"]].append(row["hostname"])
    return found


async def begin_reboot(connection: Connection, hostname: str, cool_down_seconds: float) -> str | None:
    """The instance to reboot before this transaction ends; None where there is no need any more."""
    instance = await connection.fetchval("SELECT begin_reboot($1, $2)", hostname, cool_down_seconds)
    return None if instance is None else str(instance)


async def end_reboots(connection: Connection) -> None:
    """Machines that were heard after their reboot come back."""
    await connection.execute("SELECT end_reboots()")


async def made(connection: Connection, instances: Mapping[str, str]) -> dict[str, str]:
    """Write down which instances there are, by hostname; returns who is to be invited, and to which pool."""
    rows = await connection.fetch("SELECT * FROM record_made($1)", json.dumps(dict(instances)))
    return {row["hostname"]: row["pool"] for row in rows}


async def invited(connection: Connection, hostnames: Iterable[str]) -> None:
    """Write down that their tokens are in their secrets."""
    await connection.execute(INVITED, list(hostnames))


async def ended_well(connection: Connection) -> bool:
    """Whether the run that changed machines and was over last came to its end; one that waited may be an old one."""
    return bool(await connection.fetchval(ENDED_WELL))


def _until(expires_at: Any) -> str:
    return f", until {expires_at:%Y-%m-%d %H:%M %Z}" if expires_at else ""

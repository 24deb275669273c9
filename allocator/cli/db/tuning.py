"""What `lablink db tune` asks and prints."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import asyncpg

from allocator.cli import output
from allocator.cli.database import connected, settings_place
from allocator.cli.db.superusers import superuser_dsn
from allocator.cli.failures import CommandFailed, Misused, explained
from allocator.config import load_settings
from allocator.upkeep import tune
from client.network import Connection

COLUMNS = {"name": "Setting", "now": "Now", "value": "Should be", "fits": "Fits", "why": "Why"}


def tuned(
    ram: int,
    connections: int | None,
    storage: str,
    form: str,
    superuser: str | None,
    as_json: bool,
    data_dir: Path | None,
    settings: Sequence[str],
) -> None:
    """Print what should be set, or set it when a superuser is given. Raises CommandFailed for what was refused."""
    if ram < tune.LEAST_RAM:
        raise Misused("--ram is the whole machine's memory, at least 256MB.")
    if form == "conf" and connections:
        return print(tune.as_conf(tune.recommended(ram, connections, storage)))
    found = asyncio.run(_compared(ram, connections, storage, data_dir, settings))
    if superuser:
        return _say(asyncio.run(_apply(superuser, found, data_dir, settings)))
    differing = [each for each in found if not each.fits]
    if form == "conf":
        return print(tune.as_conf([tune.Setting(each.name, each.value, each.why) for each in found]))
    if form == "sql":
        return print("\n".join(f"{tune.as_sql(each.name, each.value)};" for each in differing))
    output.show_rows([asdict(each) for each in found], COLUMNS, as_json=as_json)


async def _compared(
    ram: int, connections: int | None, storage: str, data_dir: Path | None, settings: Sequence[str]
) -> list[tune.Compared]:
    async with connected(data_dir, settings) as connection:
        wanted = tune.recommended(ram, connections or await _connections(connection), storage)
        return await tune.compared(connection, wanted)


async def _connections(connection: Connection) -> int:
    """Enough for the machines that there are, and never fewer than there may be now."""
    return max(await tune.max_connections(connection), tune.connections_for(await tune.machines(connection)))


async def _apply(
    superuser: str, found: list[tune.Compared], data_dir: Path | None, settings: Sequence[str]
) -> tune.Applied:
    database = load_settings(settings, settings_place(data_dir, settings)).database
    dsn = await superuser_dsn(database, superuser)
    with explained("Check database.host and database.port."):
        connection = await asyncpg.connect(dsn, timeout=10)
        try:
            return await tune.apply(connection, found)
        finally:
            await connection.close()


def _say(applied: tune.Applied) -> None:
    if applied.set:
        output.say(f"Set: {', '.join(applied.set)}.")
    if applied.restart:
        output.say(f"Set from the next restart of PostgreSQL on: {', '.join(applied.restart)}.")
    if not (applied.set or applied.restart or applied.refused):
        output.say("Everything was set already.")
    if applied.refused:
        raise CommandFailed("\n".join(f"{name} was refused: {why}." for name, why in applied.refused.items()))

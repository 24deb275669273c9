"""Opens what `lablink db test` walks through: the owner's connection, the service's, and a machine's."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import asyncpg

from allocator import logins
from allocator.cli.database import CONNECT_SECONDS, connected, settings_place
from allocator.config import Settings, load_settings
from allocator.upkeep import trial


def steps(full: bool, data_dir: Path | None, settings: Sequence[str]) -> list[trial.Step]:
    """How each step went. Raises CommandFailed when the database does not answer the owner at all."""
    loaded = load_settings(settings, settings_place(data_dir, settings))
    return asyncio.run(_steps(full, loaded, data_dir, settings))


async def _steps(full: bool, loaded: Settings, data_dir: Path | None, settings: Sequence[str]) -> list[trial.Step]:
    machines = loaded.database_for_machines
    async with connected(data_dir, settings) as owner:
        service = await asyncpg.connect(
            await logins.dsn(loaded.database, loaded.database.service),
            timeout=CONNECT_SECONDS,
            server_settings={"application_name": "lablink test", "lablink.actor": "test"},
        )
        try:
            taken = await trial.read_only(owner, service)
            if full and all(each.done for each in taken):
                taken += await trial.full(owner, service, lambda role, password: logins.url(machines, role, password))
            return taken
        finally:
            service.terminate()

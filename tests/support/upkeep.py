"""A database with people and machines in it, its backups, and how one is restored."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg

from allocator.operations import Tell, running
from allocator.upkeep.reach import connect
from allocator.upkeep.restore import Restored, restore
from allocator.upkeep.storage import Storage
from tests.sql.steps import ADA, BOB, ask
from tests.support.database import Database, Vm, as_superuser


async def ignore(_done: int, _total: int | None, _what: str) -> None:
    """A Tell for those who do not watch."""


@dataclass(frozen=True, slots=True)
class Halt:
    """A Tell that keeps whoever loads a backup at a table until they are let go on."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, _done: int, _total: int | None, what: str) -> None:
        """Wait, if this is a table."""
        if what.startswith("public."):
            self.reached.set()
            await self.go_on.wait()


async def some_life(database: Database) -> Vm:
    """A machine that is lent to Ada, and Bob who waits; both with a code that was not delivered yet."""
    vm = await database.vm("vm-1")
    service = await database.connect("lablink_app", **{"lablink.actor": "web"})
    await ask(service, ADA)
    await ask(service, BOB)
    await service.close()
    return vm


async def restored_from(
    database: Database,
    storage: Storage,
    name: str = "latest",
    *,
    force: bool = True,
    dsn: str | None = None,
    tell: Tell | None = None,
) -> Restored:
    """The backup put in place of the database, as the command does it."""
    dsn = dsn or database.dsn("lablink")
    async with running(lambda: connect(dsn), "restore", "a test", tell=tell) as operation:
        return await restore(dsn, storage, name, operation, force=force)


@asynccontextmanager
async def without_kept_databases(database: Database) -> AsyncIterator[None]:
    """At the end of the block the databases beside this one are dropped, which restores kept."""
    yield
    superuser = await asyncpg.connect(database.server.superuser_dsn)  # a database that has moved is not there any more
    kept = await superuser.fetch("SELECT datname FROM pg_database WHERE starts_with(datname, $1)", f"{database.name}_")
    await superuser.close()
    await as_superuser(database.server, *(f"DROP DATABASE {row['datname']} WITH (FORCE)" for row in kept))

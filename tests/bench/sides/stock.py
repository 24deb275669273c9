"""A database with free machines and the service's store on it, emptied by those who claim and filled again."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count

import asyncpg

from allocator.connection import LIMITS
from allocator.requesting import VmRequest
from allocator.store import Store
from client.command import JobCommand
from client.network import Connection
from tests.bench.ground import Ground, free_all
from tests.bench.options import CONNECTIONS

COMMAND = JobCommand(("echo", "bench"))
TOKEN = hashlib.sha256(b"bench").digest()
ALONE = """SELECT FROM request_vm($1, 'job', '{"argv": ["echo"]}', NULL, 'echo', $2, $2)"""
CHANNELS = ("vm_updates", "lease_updates")
TWICE = "SELECT count(vm_id) - count(DISTINCT vm_id) FROM leases WHERE live"

_people = count()


@dataclass(frozen=True, slots=True)
class Stock:
    """Free machines. Somebody listens, as a replica of the service does; who claims is a new person each time."""

    store: Store
    alone: "asyncpg.Pool[asyncpg.Record]"
    superuser: Connection

    async def claim(self) -> None:
        """One person's request, as the service makes it: with those that wait at the same time."""
        accepted = await self.store.request_vm(
            VmRequest(f"{next(_people)}@bench.test", COMMAND, COMMAND, "token", TOKEN, None, None, "default")
        )
        assert accepted.vm_id is not None

    async def claim_alone(self) -> None:
        """The same as a statement and a commit of its own, however many wait."""
        await self.alone.execute(ALONE, f"{next(_people)}@bench.test", TOKEN)

    async def refill(self) -> None:
        """All machines are free again, beside the triggers."""
        await free_all(self.superuser)

    async def given_twice(self) -> int:
        """How many machines too many have been given."""
        return int(await self.superuser.fetchval(TWICE))


@asynccontextmanager
async def stock(own: Ground, database: str, hosts: int, *, slow_flush: bool = False) -> AsyncIterator[Stock]:
    """A database of that name with so many free machines."""
    await own.clone(database)
    await own.fill(database, hosts)
    if slow_flush:
        await own.slow_flush(database)

    async def connect(*_of_pool: object, **_options: object) -> Connection:
        settings = {"lablink.actor": "web", **LIMITS}
        return await asyncpg.connect(own.dsn("lablink_app", database), server_settings=settings)

    superuser, listener = await asyncio.gather(own.connect("postgres", database), own.connect("lablink_app", database))
    await superuser.execute("UPDATE pools SET programs = '{echo}'")
    for channel in CHANNELS:
        await listener.add_listener(channel, _heard)
    try:
        async with (
            Store.open(connect, CONNECTIONS) as store,
            asyncpg.create_pool(connect=connect, min_size=CONNECTIONS, max_size=CONNECTIONS) as alone,
        ):
            yield Stock(store, alone, superuser)
    finally:
        await asyncio.gather(superuser.close(), listener.close())


def _heard(*_notification: object) -> None:
    """What a listener is told is not looked at here."""

"""Where random lives are lived: one database, emptied before each, with everybody's connections to it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar
from uuid import uuid4

import asyncpg

from client.scram import verifier
from tests.sql.statements import HOSTNAMES
from tests.sql.steps import ADA, BOB, CYD, ask, sha256
from tests.support import LIMIT_SECONDS
from tests.support.database import Database

Answer = TypeVar("Answer")

PASSWORD = "password of every machine"
VERIFIER = verifier(PASSWORD)
EMPTY = (
    "TRUNCATE vms, vm_heartbeats, vm_roles, join_tokens, leases, lease_secrets, events, pools RESTART IDENTITY CASCADE"
)


class World:
    """The database of all lives, emptied before each, and the connections to it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, database: Database) -> None:
        self.loop = loop
        self.database = database
        self.clients: dict[str, asyncpg.Connection] = {}
        self.roles: dict[str, str] = {}
        self.owner, self.service, self.superuser = (
            self.run(database.connect(role)) for role in ("lablink", "lablink_app", "postgres")
        )
        self.run(self.superuser.execute("SET session_replication_role = replica"))

    def run(self, call: Coroutine[Any, Any, Answer]) -> Answer:
        return self.loop.run_until_complete(asyncio.wait_for(call, LIMIT_SECONDS))

    async def begin(self) -> None:
        """Empties the database and enrols the machines."""
        await self.superuser.execute(EMPTY)
        await self.service.execute("SELECT ensure_pool('default', true, ARRAY['echo'], 600, 600, 600)")
        await self.service.execute("SELECT ensure_pool('gpu', true, ARRAY['echo'], 600, 600, 600)")
        await self.owner.execute("UPDATE pools SET claim_seconds = 600")
        for hostname in HOSTNAMES:
            await self.enrol(hostname)
        await self.lend()

    async def lend(self) -> None:
        """Ada has the first machine, Bob's command is about to start on the second, Cyd has handed back the third."""
        for email, client in zip((ADA, BOB, CYD), self.clients.values(), strict=True):
            await obey(client)
            await ask(self.service, email)
            await client.execute("SELECT client_api.claim(1)")
        first, _, third = self.clients.values()
        await obey(first)
        await self.owner.execute("UPDATE vms SET status = 'available' WHERE hostname = $1", HOSTNAMES[2])
        await obey(third)

    async def enrol(self, hostname: str) -> None:
        """The machine of this name enrols, again if it did before."""
        token = sha256(str(uuid4()))
        await self.owner.execute("SELECT invite_vm($1, 'default', $2)", hostname, token)
        role = await self.service.fetchval("SELECT role FROM enrol_vm($1, $2)", token, VERIFIER)
        if hostname in self.clients:
            await self.clients[hostname].close()
        server = self.database.server
        self.clients[hostname] = await asyncpg.connect(server.dsn(self.database.name, role, PASSWORD))
        self.roles[hostname] = role

    async def end(self) -> None:
        for client in self.clients.values():
            await client.close()


def some_lease(number: int) -> str:
    return f"(SELECT id FROM leases ORDER BY place DESC OFFSET {number} LIMIT 1)"


async def refusal_of(call: Coroutine[Any, Any, object]) -> asyncpg.PostgresError | None:
    try:
        await call
    except asyncpg.PostgresError as refusal:
        return refusal
    return None


async def both(owner: asyncpg.Connection, first: str, second: str, end: str) -> None:
    try:
        await owner.execute(f"BEGIN; {first}; {second}; {end}")
    finally:
        if owner.is_in_transaction():
            await owner.execute("ROLLBACK")


async def obey(client: asyncpg.Connection) -> None:
    orders = await client.fetchrow("SELECT * FROM client_api.hello(NULL, NULL)")
    assert orders is not None
    if orders["status"] == "cleaning":
        await client.execute("SELECT client_api.cleaned($1)", orders["epoch"])
    elif orders["lease_status"] in ("assigned", "claimed"):
        await client.execute("SELECT client_api.claim($1)", orders["epoch"])
        await client.execute(
            "SELECT client_api.report($1, $2, 'exited', 0, '', NULL, 'desktop')", orders["lease_id"], orders["epoch"]
        )

"""A fresh database for one test, cloned from a migrated template, and machines enrolled in it."""

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg

from allocator import bootstrap, migrate
from client.scram import verifier
from tests.support import LIMIT_SECONDS
from tests.support.server import TIME_ZONE, TestServer

PASSWORDS = {"lablink": "owner-password", "lablink_app": "app-password", "lablink_reader": "reader-password"}
JOIN_TOKEN_SECONDS = 3600

UNHURRIED = {"statement_timeout": "60s", "lock_timeout": "60s", "idle_in_transaction_session_timeout": "60s"}
"""What a connection of the service's role has instead of that role's limits, which a computer may stand still for."""


WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
"""Which of several test processes this is: they may share a server."""


@dataclass(frozen=True, slots=True)
class Vm:
    """A machine that enrolled: what its client would know."""

    id: int
    hostname: str
    role: str
    dsn: str
    database: "Database"

    async def connect(self) -> asyncpg.Connection:
        """A connection as the machine's own role; closed at the end of the test."""
        return await self.database.keep(self.dsn)


@dataclass(slots=True)
class Database:
    """One test's database. Connections made through it are closed at the end of the test."""

    server: TestServer
    name: str
    opened: AsyncExitStack
    _own: dict[str, asyncpg.Connection] = field(default_factory=dict)

    def dsn(self, role: str = "lablink_app") -> str:
        """Where to connect as one of LabLink's roles, or as the superuser (`postgres`)."""
        if role == "postgres":
            return self.server.dsn(self.name)
        return self.server.dsn(self.name, role, PASSWORDS[role])

    async def connect(self, role: str = "lablink", **settings: str) -> asyncpg.Connection:
        """A new connection as `role`; `settings` are server settings, e.g. application_name."""
        return await self.keep(self.dsn(role), **(UNHURRIED | settings if role == "lablink_app" else settings))

    async def keep(self, dsn: str, **settings: str) -> asyncpg.Connection:
        """A new connection to `dsn`, closed at the end of the test."""
        connection = await asyncpg.connect(dsn, server_settings=settings)
        self.opened.push_async_callback(_close, connection)
        return connection

    async def vm(self, hostname: str = "vm-1", status: str = "available", pool: str = "default") -> Vm:
        """A machine that enrolled with a join token; unless it shall stay "booting", it said hello and is available."""
        vm = await self.enrol(hostname, pool)
        if status != "booting":
            client = await vm.connect()
            orders = await client.fetchrow("SELECT * FROM client_api.hello(0, NULL)")
            if orders and orders["status"] == "cleaning":
                await client.execute("SELECT client_api.cleaned($1)", orders["epoch"])
            await client.close()
        if status not in ("booting", "available"):
            raise ValueError(f"a new machine is booting or available, not {status}")
        return vm

    async def enrol(self, hostname: str, pool: str = "default") -> Vm:
        """A machine that has its role and has not said hello."""
        token, password = secrets.token_bytes(32), secrets.token_hex(16)
        digest = hashlib.sha256(token).digest()
        owner, app = await self._as("lablink"), await self._as("lablink_app")
        await owner.execute("SELECT invite_vm($1, $2, $3, $4)", hostname, pool, digest, JOIN_TOKEN_SECONDS)
        row = await app.fetchrow("SELECT * FROM enrol_vm($1, $2)", digest, verifier(password))
        assert row is not None
        return Vm(row["vm_id"], hostname, row["role"], self.server.dsn(self.name, row["role"], password), self)

    async def age(self, what: Vm | UUID, seconds: float) -> None:
        """Makes a machine's last sign of life, or a lease and its secrets, that much older; no trigger notices."""
        statements = AGE_VM if isinstance(what, Vm) else AGE_LEASE
        key = what.id if isinstance(what, Vm) else what
        superuser = await self._as("postgres")
        async with superuser.transaction():
            await superuser.execute("SET LOCAL session_replication_role = replica")
            for statement in statements:
                await superuser.execute(statement, key, seconds)

    async def let_pass(self, seconds: float) -> None:
        """Makes LabLink's clock() run ahead, for what is measured from the start of PostgreSQL itself."""
        owner = await self._as("lablink")
        await owner.execute(
            "CREATE OR REPLACE FUNCTION clock() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE "
            f"RETURN now() + interval '{seconds} seconds'"
        )

    async def stand_at(self, moment: str) -> None:
        """Makes LabLink's clock() say that moment and stand there, for what depends on the day and the hour."""
        owner = await self._as("lablink")
        await owner.execute(
            "CREATE OR REPLACE FUNCTION clock() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE "
            f"RETURN timestamptz '{moment}'"
        )

    async def stop_clock(self) -> None:
        """Makes LabLink's clock() stand where it is: two looks agree, nobody is silent for long and no time is up."""
        await self.stand_at(str(await (await self._as("lablink")).fetchval("SELECT clock()")))

    async def _as(self, role: str) -> asyncpg.Connection:
        if role not in self._own or self._own[role].is_closed():
            self._own[role] = await self.connect(role, application_name="fixture")
        return self._own[role]


AGE_VM = ("UPDATE vm_heartbeats SET seen_at = seen_at - make_interval(secs => $2) WHERE vm_id = $1",)
LEASE_TIMES = (
    "created_at",
    "assigned_at",
    "claimed_at",
    "started_at",
    "active_at",
    "deadline",
    "expires_at",
    "turn_at",
)
OLDER = ", ".join(f"{name} = {name} - make_interval(secs => $2)" for name in LEASE_TIMES)
AGE_LEASE = (
    f"UPDATE leases SET {OLDER} WHERE id = $1",
    "UPDATE lease_secrets SET created_at = created_at - make_interval(secs => $2) WHERE lease_id = $1",
)


async def free_machines(owner: asyncpg.Connection, number: int) -> None:
    """That many machines more, none of which has a client."""
    await owner.execute(
        "INSERT INTO vms (hostname, status) SELECT 'h' || g, 'available' FROM generate_series(1, $1::integer) g", number
    )
    await owner.execute("INSERT INTO vm_heartbeats SELECT id, clock() FROM vms")


@asynccontextmanager
async def migrated_template(server: TestServer) -> AsyncIterator[str]:
    """The name of a database that has LabLink's roles and every migration, for others to be cloned from."""
    name = f"lablink_template_{WORKER}"
    await as_superuser(server, _dropping(name))
    await bootstrap.prepare(server.superuser_dsn, PASSWORDS, name)
    await migrate.upgrade(server.dsn(name, "lablink", PASSWORDS["lablink"]))
    yield name
    await as_superuser(server, _dropping(name))


@asynccontextmanager
async def cloned_database(server: TestServer, template: str, name: str) -> AsyncIterator[Database]:
    """A database like `template`, dropped at the end with whoever is still connected to it."""
    await as_superuser(
        server,
        _dropping(name),
        f"CREATE DATABASE {name} OWNER lablink TEMPLATE {template} STRATEGY file_copy",
        f"ALTER DATABASE {name} SET timezone = '{TIME_ZONE}'",
        bootstrap.access_to(name),
    )
    try:
        async with AsyncExitStack() as opened:
            yield Database(server, name, opened)
    finally:
        roles = await _roles_of(server, name) if server.outlives_us else []
        await as_superuser(server, _dropping(name), *(f"DROP ROLE IF EXISTS {role}" for role in roles))


async def _roles_of(server: TestServer, name: str) -> list[str]:
    """The machines' roles that were made in a database; roles belong to the whole server and outlive it."""
    connection = await asyncpg.connect(server.dsn(name))
    try:
        return [row["role"] for row in await connection.fetch("SELECT role FROM vm_roles")]
    except asyncpg.UndefinedTableError:  # a test that went down to an empty database
        return []
    finally:
        await connection.close()


def _dropping(name: str) -> str:
    return f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"


async def as_superuser(server: TestServer, *statements: str) -> None:
    """Run statements in none of a test's databases."""
    connection = await asyncpg.connect(server.superuser_dsn)
    try:
        for statement in statements:
            await _insist(connection, statement)
    finally:
        await connection.close()


async def _insist(connection: asyncpg.Connection, statement: str) -> None:
    """A database is only dropped or copied when nobody is in it; PostgreSQL waits five seconds for those who leave."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            with suppress(asyncpg.ObjectInUseError):
                await connection.execute(statement)
                return


async def _close(connection: asyncpg.Connection) -> None:
    """Closes politely if the server still answers, at once otherwise."""
    try:
        await connection.close(timeout=2)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()

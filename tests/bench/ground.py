"""The server of a run: PostgreSQL of our own, with every promise that it keeps in production, and its databases."""

import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from allocator import bootstrap, migrate
from allocator.local.installation import ROLES
from allocator.local.postgres import Server, kept_secret, running_server
from client.network import Connection
from tests.bench.options import Options

HERE = Path(__file__).parent
TEMPLATE = "bench_template"
MEMORY, ROOM = Path("/dev/shm"), 4 << 30
FLUSH_MS = 1
MOST_DIRECT = 550
"""How many machines may hold a connection of their own."""

FREE = """
    SET session_replication_role = replica;
    UPDATE vms SET status = 'available', lease_id = NULL, email = NULL, crd_command = NULL, cleaned_epoch = epoch,
        reason = NULL WHERE status <> 'available';
    DELETE FROM lease_secrets;
    DELETE FROM leases;
    RESET session_replication_role;
"""

SETTINGS = {"track_commit_timestamp": "on"}  # so that the moment of a commit can be asked for afterwards


@dataclass(frozen=True, slots=True)
class Ground:
    """A running server, LabLink's roles on it and a migrated database to clone."""

    directory: Path
    server: Server
    passwords: dict[str, str]

    def dsn(self, role: str, database: str) -> str:
        """Where `role` (or `postgres`, the superuser) connects to `database`."""
        return self.server.dsn(role, self.passwords.get(role), database)

    async def connect(self, role: str, database: str) -> Connection:
        """A connection; whoever asks closes it."""
        return await asyncpg.connect(self.dsn(role, database))

    async def make(self, database: str, template: str = "template1") -> None:
        """A fresh database of that name, in place of one that another scenario left."""
        await self._execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
        await self._execute(f"CREATE DATABASE {database} OWNER lablink TEMPLATE {template}")

    async def clone(self, database: str) -> None:
        """A fresh LabLink database of that name."""
        await self.make(database, TEMPLATE)
        await self._execute(bootstrap.access_to(database))

    async def slow_flush(self, database: str) -> None:
        """From now on whoever connects to that database flushes as if the disk were across a network.

        PostgreSQL's own commit_delay: who flushes waits first, holding the lock that all others' flushes wait for. An
        fdatasync that sleeps as long, put in with LD_PRELOAD, gave the same: 1.26 ms a commit beside 1.23.
        """
        for setting in (f"commit_delay = {1000 * FLUSH_MS}", "commit_siblings = 0"):
            await self._execute(f"ALTER DATABASE {database} SET {setting}")

    async def naive(self, database: str, hosts: int) -> None:
        """The guide's database, with that many available machines."""
        await self.make(database)
        owner = await self.connect("lablink", database)
        try:
            await owner.execute((HERE / "naive.sql").read_text())
            await owner.execute("ALTER TABLE vms DISABLE TRIGGER vm_update_trigger")
            await owner.execute(
                "INSERT INTO vms (hostname, status) SELECT 'vm-' || g, 'available' FROM generate_series(1, $1) g", hosts
            )
            await owner.execute("ALTER TABLE vms ENABLE TRIGGER vm_update_trigger")
            await owner.execute("VACUUM ANALYZE vms")
        finally:
            await owner.close()

    async def fill(self, database: str, hosts: int) -> None:
        """That many free machines in a LabLink database, beside the triggers."""
        superuser = await self.connect("postgres", database)
        try:
            await superuser.execute((HERE / "fill.sql").read_text().replace(":n", str(hosts)))
            for table in ("vms", "vm_heartbeats"):
                await superuser.execute(f"VACUUM ANALYZE {table}")
        finally:
            await superuser.close()

    async def version(self) -> str:
        """PostgreSQL's version in full."""
        superuser = await self.connect("postgres", "postgres")
        try:
            return str(await superuser.fetchval("SHOW server_version"))
        finally:
            await superuser.close()

    async def _execute(self, statements: str) -> None:
        superuser = await self.connect("postgres", "postgres")
        try:
            await superuser.execute(statements)
        finally:
            await superuser.close()


def in_memory() -> Path | None:
    """A directory in memory, so that a flush takes as long as it is told to; None where there is no room."""
    return MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM else None


async def free_all(superuser: Connection) -> None:
    """All machines are free again, beside the triggers, and all leases forgotten."""
    await superuser.execute(FREE)
    for table in ("vms", "leases", "events"):
        await superuser.execute(f"VACUUM ANALYZE {table}")


@asynccontextmanager
async def ground(options: Options) -> AsyncIterator[Ground]:
    """A server with room for the machines of both sides, gone with its data at the end of the block."""
    clients = max(2 * options.clients, MOST_DIRECT)
    with tempfile.TemporaryDirectory(prefix="lablink-bench-", dir=options.data or in_memory()) as name:
        directory = Path(name)
        directory.chmod(0o755)
        async with running_server(directory, clients=clients, version=options.postgres, settings=SETTINGS) as server:
            passwords = {role: kept_secret(directory, role) for role in ROLES}
            own = Ground(directory, server, passwords)
            await bootstrap.prepare(server.dsn(), passwords, TEMPLATE)
            await migrate.upgrade(own.dsn("lablink", TEMPLATE))
            try:
                yield own
            finally:
                with suppress(ProcessLookupError):
                    server.process.send_signal(signal.SIGQUIT)  # at once: nothing of this needs a checkpoint
                await server.process.wait()

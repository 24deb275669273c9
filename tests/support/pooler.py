"""PgBouncer in transaction mode, for tests that ask through it."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from allocator.local.accounts import account_of_server
from tests.support import LIMIT_SECONDS
from tests.support.database import PASSWORDS
from tests.support.server import TestServer
from tests.support.up import free_port, open_directory

# Few connections for many clients, so that a statement often meets another one's.
SETTINGS = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = transaction
max_client_conn = 300
default_pool_size = 3
server_login_retry = 1
"""


@dataclass(slots=True)
class Pooler:
    """A PgBouncer that may be killed and started again, at the same port."""

    port: int
    settings: Path
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; returns when it takes connections."""
        program, account = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer", account_of_server()
        self.process = await asyncio.create_subprocess_exec(
            program, "-q", str(self.settings), stderr=asyncio.subprocess.DEVNULL, user=account.uid if account else None
        )
        await _answers(self.port, self.process)

    async def kill(self) -> None:
        """End it at once, and every connection with it."""
        if self.process and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@asynccontextmanager
async def pooler_before(server: TestServer, port: int | None = None) -> AsyncIterator[Pooler]:
    """A PgBouncer that leads to every database of the server (by way of `port`, if given), for the service's role."""
    place, own = urlsplit(server.superuser_dsn), free_port()
    with open_directory() as directory:
        users = directory / "users"
        users.write_text(f'"lablink_app" "{PASSWORDS["lablink_app"]}"\n')
        pooler = Pooler(own, directory / "pgbouncer.ini")
        pooler.settings.write_text(SETTINGS.format(host=place.hostname, port=port or place.port, own=own, users=users))
        try:
            await pooler.start()
            yield pooler
        finally:
            await pooler.kill()


async def _answers(port: int, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while process.returncode is None:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.02)
    raise AssertionError("PgBouncer ended before it answered")

"""PgBouncer in transaction mode, for tests that ask through it."""

import asyncio
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from allocator.local.accounts import account_of_server
from tests.support.database import PASSWORDS
from tests.support.machine import LIMIT_SECONDS
from tests.support.server import TestServer

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
"""


@asynccontextmanager
async def pooler_before(server: TestServer) -> AsyncIterator[int]:
    """The port of a PgBouncer that leads to every database of the server, for the service's role."""
    program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    place, account = urlsplit(server.superuser_dsn), account_of_server()
    own = _free_port()
    with tempfile.TemporaryDirectory(prefix="lablink-pooler-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        users, settings = directory / "users", directory / "pgbouncer.ini"
        users.write_text(f'"lablink_app" "{PASSWORDS["lablink_app"]}"\n')
        settings.write_text(SETTINGS.format(host=place.hostname, port=place.port, own=own, users=users))
        process = await asyncio.create_subprocess_exec(
            program, "-q", str(settings), stderr=asyncio.subprocess.DEVNULL, user=account.uid if account else None
        )
        try:
            await _answers(own, process)
            yield own
        finally:
            process.kill()
            await process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def _answers(port: int, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while process.returncode is None:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.02)
    raise AssertionError("PgBouncer ended before it answered")

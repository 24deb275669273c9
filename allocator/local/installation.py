"""What one data directory holds besides the data: who may log in, what the allocator is told, how it is started."""

import importlib
import os
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from allocator import bootstrap
from allocator.conf_files import KEPT, override
from allocator.local import UpFailed
from allocator.local.postgres import Server, kept_secret
from allocator.local.supervisor import Child, environment
from client.network import hang_up

CLOSE_SECONDS = 2.0

ROLES = (bootstrap.OWNER, bootstrap.SERVICE, bootstrap.READER)


def load() -> None:
    """Import what preparing the database needs: a third of a second that PostgreSQL's start covers."""
    for name in ("allocator.migrate", "allocator.standing"):
        importlib.import_module(name)


@dataclass(frozen=True, slots=True)
class Installation:
    """A data directory whose PostgreSQL runs, and the port of its web page."""

    data_dir: Path
    port: int
    server: Server
    settings: Sequence[str] = ()
    """What differs from the usual, `key=value` each."""

    @property
    def url(self) -> str:
        """The web page, as people and machines reach it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def logs(self) -> Path:
        """Where each child's output goes."""
        return self.data_dir / "logs"

    @property
    def owner_dsn(self) -> str:
        """Where to connect as the owner of the database."""
        return self.server.dsn(bootstrap.OWNER, kept_secret(self.data_dir, bootstrap.OWNER), bootstrap.DATABASE)

    @asynccontextmanager
    async def owner(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection as the owner; the history will say that `up` did it."""
        connection = await asyncpg.connect(self.owner_dsn, server_settings={"lablink.actor": "up"}, timeout=10)
        try:
            yield connection
        finally:
            await hang_up(connection, CLOSE_SECONDS)

    async def prepare_database(self) -> str | None:
        """Make roles and database, bring it to the newest version, with the pool that is set; returns that version."""
        from allocator import config, migrate, standing  # loaded while PostgreSQL started: see load

        passwords = {role: kept_secret(self.data_dir, role) for role in ROLES}
        await bootstrap.prepare(self.server.dsn(), passwords)
        version = await migrate.upgrade(self.owner_dsn)
        async with self.owner() as connection:
            settings = config.load_settings(data_dir=self.data_dir)
            await standing.ensure_settings(connection, settings.pool, settings.transport)
        return version

    def scaled(self) -> bool:
        """Whether processes come and go as the pool needs machines. Where there is a fleet, that does."""
        from allocator.config import load_settings  # loaded while PostgreSQL started: see load

        settings = load_settings(data_dir=self.data_dir)
        return settings.pool.max_machines is not None and settings.fleet.settings is None

    def write_settings(self) -> None:
        """Keep what `lablink … --data-dir` must know in the data directory."""
        settings = {
            "server.port": str(self.port),
            "database.port": str(self.server.port),
            "database.owner.password": self._secret(bootstrap.OWNER),
            "database.service.password": self._secret(bootstrap.SERVICE),
        }
        lines = [
            "database=local",
            "pool=local",
            *(override(key, value) for key, value in settings.items()),
            *self.settings,
        ]
        self.logs.mkdir(mode=0o700, exist_ok=True)
        (self.data_dir / KEPT).write_text("\n".join(lines) + "\n")

    def allocator(self, listener: socket.socket) -> Child:
        """The allocator as a child that accepts on `listener`; it finds the way to AWS as every AWS program does."""
        return Child(
            "The allocator",
            ["lablink", "serve", f"--data-dir={self.data_dir}", f"--fd={listener.fileno()}"],
            self.logs / "allocator.log",
            environment(**{name: value for name, value in os.environ.items() if name.startswith("AWS_")}),
            sockets=[listener.fileno()],
        )

    def _secret(self, role: str) -> str:
        return f"file:{self.data_dir / 'secrets' / role}"


@contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """A socket that listens on the loopback, opened by us so that it stays open while the allocator restarts."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise UpFailed(
                f"Port {port} cannot be used ({error.strerror}): stop what uses it, or give another --port."
            ) from error
        listener.listen(512)
        yield listener

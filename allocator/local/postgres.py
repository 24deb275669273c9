"""Runs a PostgreSQL server of our own under a directory: made at the first start, stopped with whoever started it."""

import asyncio
import fcntl
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from allocator.local.binaries import ServerFailed
from allocator.local.cluster import SUPERUSER, Cluster, write_durably
from allocator.local.postmaster import stop


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL that accepts connections; `process` ends when it does."""

    port: int
    version: int
    password: str
    process: asyncio.subprocess.Process

    def dsn(self, user: str = SUPERUSER, password: str | None = None, database: str = "postgres") -> str:
        """Where to connect as `user`; without a password given, the superuser's."""
        word = quote(password or self.password, safe="")
        return f"postgresql://{user}:{word}@127.0.0.1:{self.port}/{database}?sslmode=disable"


@asynccontextmanager
async def running_server(
    directory: Path,
    *,
    clients: int = 10,
    version: int | None = None,
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[Server]:
    """A server whose data lies in `directory`/postgres, for the time of the block, with room for `clients` VMs.

    `settings` are further ones of PostgreSQL's. Raises ServerFailed with one sentence for the person at the terminal.
    """
    directory = directory.absolute()
    with _sole_user_of(directory):
        with _explained(directory):
            cluster = Cluster.under(directory, version)
            password = kept_secret(directory, SUPERUSER)
            if not cluster.data.exists():
                await cluster.initialise(password)
            await cluster.stop_leftover()
            port, process = await cluster.start(clients, settings or {})
        try:
            yield Server(port, cluster.binaries.version, password, process)
        finally:
            await stop(process)


def kept_secret(directory: Path, name: str) -> str:
    """The password kept in `directory`/secrets/`name`, made (256 bits) when it is not there yet."""
    path = directory / "secrets" / name
    with _explained(directory):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            write_durably(path, secrets.token_urlsafe(32))
        return path.read_text().strip()


def in_use(directory: Path) -> bool:
    """Whether somebody runs a server under `directory` at this moment."""
    try:
        with _sole_user_of(directory):
            return False
    except ServerFailed:
        return True


@contextmanager
def _explained(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ServerFailed(
            f"{directory} cannot be the data directory ({error.strerror}): choose another one."
        ) from error


@contextmanager
def _sole_user_of(directory: Path) -> Iterator[None]:
    with _explained(directory):
        directory.mkdir(parents=True, exist_ok=True)
        lock = open(directory / "postgres.lock", "wb")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ServerFailed(f"{directory} is in use by another LabLink: stop it, or choose another one.") from error
        yield

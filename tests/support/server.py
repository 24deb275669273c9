"""The PostgreSQL server that tests run against: one given, else local binaries, else a container."""

import asyncio
import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from allocator.local import UpFailed
from allocator.local.postgres import LOCK, Server, kept_secret, running_server
from allocator.local.postgres_binaries import find_binaries
from allocator.local.postgres_cluster import SUPERUSER, Cluster

CLIENTS = 200
TIME_ZONE = "Asia/Kathmandu"  # +05:45: whatever confuses local time with UTC shows

# Nothing of a test run needs to survive a power cut.
UNSAFE_AND_FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_wal_size": "96MB",
    "TimeZone": TIME_ZONE,
    "authentication_timeout": "60s",  # whoever stands still while they log in
    "autovacuum": "off",  # its locks are in the way of what gives up after a moment
}

PREFIX = "lablink-tests-"
MEMORY = Path("/dev/shm")
ROOM = 1 << 30
"""Bytes of memory that must be free for a server's data to lie there: a database is cloned ten times as fast."""


@dataclass(frozen=True, slots=True)
class TestServer:
    """A PostgreSQL and its superuser's DSN."""

    __test__ = False

    superuser_dsn: str
    version: int
    outlives_us: bool = False
    """Whether it is somebody's, who wants no roles of ours left on it."""
    pooler_port: int | None = None
    """Where a PgBouncer leads to it, if the service is to ask through one."""

    def dsn(self, database: str, user: str | None = None, password: str = "") -> str:
        """A DSN for `database`: as `user`, else as the superuser."""
        parts = urlsplit(self.superuser_dsn)
        host = parts.netloc.rpartition("@")[2]
        who = f"{user}:{quote(password, safe='')}@{host}" if user else parts.netloc
        return urlunsplit((parts.scheme, who, f"/{database}", parts.query, ""))


@asynccontextmanager
async def found_server() -> AsyncIterator[TestServer]:
    """LABLINK_TEST_DSN's server, else local binaries (of version LABLINK_TEST_PG), else a container of that version."""
    wanted = os.environ.get("LABLINK_TEST_PG")
    version = int(wanted) if wanted else None
    if given := os.environ.get("LABLINK_TEST_DSN"):
        yield await _described(given, outlives_us=True)
    elif _has_binaries(version):
        with _place() as directory:
            async with running_server(directory, clients=CLIENTS, version=version, settings=UNSAFE_AND_FAST) as own:
                yield await _described(own.dsn())
    else:
        async with contained_server(f"postgres:{version or 18}") as contained:
            yield contained


@asynccontextmanager
async def contained_server(image: str) -> AsyncIterator[TestServer]:
    """A container of that image, which testcontainers starts and removes."""
    from testcontainers.community.postgres import PostgresContainer

    with PostgresContainer(image, driver=None) as container:
        yield await _described(container.get_connection_url())


@asynccontextmanager
async def fresh_server(directory: Path, version: int) -> AsyncIterator[Server]:
    """A server with nothing of ours, its data in `directory`."""
    await initialise(directory, version)
    async with running_server(directory, version=version, settings=UNSAFE_AND_FAST) as own:
        yield own


async def initialise(directory: Path, version: int) -> None:
    """Put the data of a server that was never started there: a copy of what initdb made once for this process."""
    await copy_data(await _pristine(version), directory)


async def copy_data(made: Path, directory: Path) -> None:
    """Put the data of a server that is stopped there, too."""
    copying = await asyncio.create_subprocess_exec("cp", "-a", made / "postgres", made / "secrets", directory)
    assert await copying.wait() == 0


async def _pristine(version: int) -> Path:
    """A directory with the data of a server that was never started."""
    if version not in _initialised:
        made = tempfile.TemporaryDirectory(prefix=PREFIX)
        directory = Path(made.name)
        await Cluster.under(directory, version).initialise(kept_secret(directory, SUPERUSER))
        _initialised[version] = made
    return Path(_initialised[version].name)


_initialised: dict[int, tempfile.TemporaryDirectory[str]] = {}


@contextmanager
def _place() -> Iterator[Path]:
    """A directory for a server's data: in memory if there is room, cleared of what killed test runs left there."""
    with ExitStack() as opened:
        if MEMORY.is_dir():
            with _locked(MEMORY, fcntl.LOCK_EX):  # so that nobody takes for left what somebody has just made
                _remove_left()
                own = _new_directory(opened, MEMORY if shutil.disk_usage(MEMORY).free > ROOM else None)
        else:
            own = _new_directory(opened, None)
        yield own


def _new_directory(opened: ExitStack, place: Path | None) -> Path:
    """A directory below `place` that every user may enter, this process's until it is removed."""
    made = tempfile.TemporaryDirectory(prefix=PREFIX, dir=place)
    directory = Path(made.name)
    directory.chmod(0o755)
    opened.enter_context(_locked(directory, fcntl.LOCK_SH))
    opened.callback(made.cleanup)
    return directory


def _remove_left() -> None:
    """Remove the directories that are nobody's any more."""
    free = fcntl.LOCK_EX | fcntl.LOCK_NB
    for left in MEMORY.glob(f"{PREFIX}*"):
        with suppress(OSError), _locked(left, free), _locked(left / LOCK, free):
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    """While it is this process's; the kernel lets go of it when that is killed. Raises BlockingIOError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _has_binaries(version: int | None) -> bool:
    try:
        return bool(find_binaries(version))
    except UpFailed:
        return False


async def _described(dsn: str, outlives_us: bool = False) -> TestServer:
    connection = await asyncpg.connect(dsn)
    try:
        return TestServer(dsn, connection.get_server_version().major, outlives_us)
    finally:
        await connection.close()

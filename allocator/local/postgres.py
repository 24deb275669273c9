"""Runs a PostgreSQL server of our own under a directory: made at the first start, stopped with whoever started it."""

import asyncio
import fcntl
import secrets
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from allocator.local import UpFailed
from allocator.local.postgres_cluster import SUPERUSER, Cluster, write_durably
from allocator.local.postgres_process import stop
from allocator.local.supervisor import BackOff, Say, how_it_ended
from allocator.tasks import happens

LOCK = "postgres.lock"


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

    `settings` are further ones of PostgreSQL's. Raises UpFailed with one sentence for the person at the terminal.
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


@asynccontextmanager
async def kept_server(
    directory: Path, clients: int, say: Say, hurry: asyncio.Event
) -> AsyncIterator["asyncio.Future[Server]"]:
    """A server that comes up beside the block and lives as long as it; the future is the server, once it accepts.

    The future fails with UpFailed when the first start does; later ones are tried again.
    """
    keeper = _Keeper(directory, clients, say, hurry)
    task = asyncio.create_task(keeper.run())
    try:
        yield keeper.first
    finally:
        keeper.stop.set()
        await task
        if keeper.first.done() and not keeper.first.cancelled():
            keeper.first.exception()  # whoever waited for it has been told


def kept_secret(directory: Path, name: str) -> str:
    """The password kept in `directory`/secrets/`name`, made (256 bits) when it is not there yet."""
    path = directory / "secrets" / name
    with _explained(directory):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            write_durably(path, secrets.token_urlsafe(32))
        return path.read_text().strip()


@contextmanager
def _explained(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UpFailed(f"{directory} cannot be the data directory ({error.strerror}): choose another one.") from error


@contextmanager
def _sole_user_of(directory: Path) -> Iterator[None]:
    with _explained(directory):
        directory.mkdir(parents=True, exist_ok=True)
        lock = open(directory / LOCK, "wb")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UpFailed(f"{directory} is in use by another LabLink: stop it, or choose another one.") from error
        yield


@dataclass(frozen=True, slots=True)
class _Keeper:
    directory: Path
    clients: int
    say: Say
    hurry: asyncio.Event
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    first: "asyncio.Future[Server]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    async def run(self) -> None:
        """Start the server, and again whenever it ends, until asked to stop."""
        back_off = BackOff()
        while not self.stop.is_set():
            began = time.monotonic()
            try:
                await self._run_once()
            except UpFailed as failure:
                if not self.first.done():
                    return self.first.set_exception(failure)
                self.say(str(failure))
            await happens(self.stop, back_off.after(time.monotonic() - began))

    async def _run_once(self) -> None:
        quitters: list[asyncio.Task[None]] = []
        try:
            async with running_server(self.directory, clients=self.clients) as server:
                quitters.append(asyncio.create_task(self._quit_in_a_hurry(server.process)))
                if not self.first.done():
                    self.first.set_result(server)
                await self._until_it_ends(server.process)
        finally:
            for quitter in quitters:
                quitter.cancel()

    async def _until_it_ends(self, process: asyncio.subprocess.Process) -> None:
        """Return when the server died by itself, having said so, or when it is to be stopped."""
        ended, stopped = asyncio.create_task(process.wait()), asyncio.create_task(self.stop.wait())
        await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not self.stop.is_set():
            log = self.directory / "postgres.log"
            self.say(f"PostgreSQL {how_it_ended(ended.result())}; starting it again. Its log: {log}")
        for task in (ended, stopped):
            task.cancel()

    async def _quit_in_a_hurry(self, process: asyncio.subprocess.Process) -> None:
        """An immediate shutdown, from which the next start recovers, as soon as somebody does not want to wait."""
        await self.stop.wait()
        await self.hurry.wait()
        for sign in (signal.SIGQUIT, signal.SIGCONT):
            with suppress(ProcessLookupError):
                process.send_signal(sign)

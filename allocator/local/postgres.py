"""Runs a PostgreSQL server of our own under a directory: made at the first start, stopped with whoever started it."""

import asyncio
import ctypes
import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from allocator.local.binaries import (
    Account,
    Binaries,
    ServerFailed,
    find_binaries,
    reachable,
    runnable,
    unprivileged_account,
)

SUPERUSER = "postgres"
START_SECONDS = 60.0
STOP_SECONDS = 20.0
SOCKET_PATH_BYTES = 107
PR_SET_PDEATHSIG = 1

SYMPTOMS = (
    ("No space left on device", "The disk is full: make room under {directory}, then start again."),
    ("Permission denied", "PostgreSQL, run as {user}, may not write under {directory}: choose another data directory."),
    ("database files are incompatible", "{directory} was made by another PostgreSQL: choose another data directory."),
    ("could not map anonymous shared memory", "There is not enough memory for PostgreSQL: close something."),
)


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
        cluster = _Cluster.under(directory, version)
        password = kept_secret(directory, SUPERUSER)
        if not cluster.data.exists():
            await cluster.initialise(password)
        await cluster.stop_leftover()
        port, process = await cluster.start(clients, settings or {})
        try:
            yield Server(port, cluster.binaries.version, password, process)
        finally:
            await _stop(process)


def kept_secret(directory: Path, name: str) -> str:
    """The password kept in `directory`/secrets/`name`, made (256 bits) when it is not there yet."""
    path = directory / "secrets" / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _write_durably(path, secrets.token_urlsafe(32))
        return path.read_text().strip()
    except OSError as error:
        raise ServerFailed(_refused(directory, error)) from error


def _write_durably(path: Path, text: str) -> None:
    """Writes a file of mode 0600 that is either whole or not there."""
    staging = path.with_name(f"{path.name}.{os.getpid()}")
    with open(os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())
    staging.rename(path)


def _refused(directory: Path, error: OSError) -> str:
    return f"{directory} cannot be used as data directory ({error.strerror}): choose another one."


@contextmanager
def _sole_user_of(directory: Path) -> Iterator[None]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = open(directory / "postgres.lock", "wb")
    except OSError as error:
        raise ServerFailed(_refused(directory, error)) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ServerFailed(f"{directory} is in use by another LabLink: stop it, or choose another one.") from error
        yield


@dataclass(frozen=True, slots=True)
class _Cluster:
    """One data directory, the binaries that made it and the user they run as."""

    directory: Path
    binaries: Binaries
    account: Account | None

    @classmethod
    def under(cls, directory: Path, version: int | None) -> "_Cluster":
        account = unprivileged_account()
        made_by = _version_of(directory / "postgres")
        if made_by and version and made_by != version:
            raise ServerFailed(f"{directory} was made by PostgreSQL {made_by}, not {version}: choose another directory.")
        return cls(directory, runnable(find_binaries(made_by or version), account), account)

    @property
    def data(self) -> Path:
        return self.directory / "postgres"

    @property
    def name(self) -> str:
        """Tells this server's processes from everybody else's; stands in their command line."""
        return f"lablink-{hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:16]}"

    async def initialise(self, password: str) -> None:
        """Makes the data directory in one step: whatever interrupts it, there is a whole one or none."""
        staging = self.directory / "postgres.new"
        try:
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(mode=0o700)
            (staging / "password").write_text(f"{password}\n")
            self._give_away(staging, staging / "password")
            code, said = await self._initdb(staging)
            if code != 0:
                raise ServerFailed(self._sentence(said))
            (staging / "data").rename(self.data)
        except OSError as error:
            raise ServerFailed(_refused(self.directory, error)) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    async def _initdb(self, staging: Path) -> tuple[int, str]:
        with self._seen_by_server(staging) as (place, descriptors):
            process = await self._spawn(
                [
                    "initdb",
                    f"--pgdata={place}/data",
                    f"--username={SUPERUSER}",
                    f"--pwfile={place}/password",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    f"--locale={'C.UTF-8' if sys.platform == 'linux' else 'C'}",
                    "--data-checksums",
                    "--no-instructions",
                ],
                descriptors,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            said, _ = await process.communicate()
        return process.returncode or 0, said.decode(errors="replace")

    async def stop_leftover(self) -> None:
        """Ends a server that outlived whoever started it, and forgets one that was killed."""
        pid = _postmaster(self.data)[0]
        if pid is None:
            return
        async with _limit("The PostgreSQL of an earlier start does not stop", STOP_SECONDS):
            while self.name in _command_line(pid):
                os.kill(pid, signal.SIGINT)
                await asyncio.sleep(0.05)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    async def start(self, clients: int, settings: Mapping[str, str]) -> tuple[int, asyncio.subprocess.Process]:
        """Starts the server on the port it had, or on a free one; returns when it accepts connections."""
        port = _free_port(_kept_port(self.directory))
        with open(self.directory / "postgres.log", "ab") as log, self._seen_by_server(self.data) as (place, descriptors):
            begin = log.tell()
            process = await self._spawn(
                ["postgres", "-D", place, *_flags(self._settings(port, clients) | dict(settings))],
                descriptors,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            await self._accepting(process, begin)
            _write_durably(self.directory / "postgres.port", str(port))
        except BaseException:
            await _stop(process)
            raise
        return port, process

    async def _accepting(self, process: asyncio.subprocess.Process, begin: int) -> None:
        exited = asyncio.ensure_future(process.wait())
        async with _limit("PostgreSQL is still busy recovering", START_SECONDS):
            while _postmaster(self.data) != (process.pid, "ready"):
                if exited.done():
                    raise ServerFailed(self._sentence(_text_from(self.directory / "postgres.log", begin)))
                await asyncio.wait({exited}, timeout=0.01)

    def _settings(self, port: int, clients: int) -> dict[str, str]:
        socket_path = self.data / f".s.PGSQL.{port}"
        fits = len(os.fsencode(socket_path)) <= SOCKET_PATH_BYTES and reachable(self.data, self.account)
        return {
            "cluster_name": self.name,
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": str(self.data) if fits else "",
            "max_connections": str(2 * clients + 40),  # a client that reconnects has two for a moment
            "password_encryption": "scram-sha-256",
            "log_min_error_statement": "panic",  # a statement may hold a code or a PIN
            "log_checkpoints": "off",
            "jit": "off",
        }

    async def _spawn(
        self, command: Sequence[str], descriptors: Sequence[int], **streams: Any
    ) -> asyncio.subprocess.Process:
        program = self.binaries.directory / command[0]
        who: dict[str, Any] = {}
        if self.account:
            who = {"user": self.account.uid, "group": self.account.gid, "extra_groups": []}
        return await asyncio.create_subprocess_exec(
            program,
            *command[1:],
            cwd="/",
            env={name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"},
            pass_fds=descriptors,
            start_new_session=True,
            preexec_fn=_die_with_parent,
            **who,
            **streams,
        )

    @contextmanager
    def _seen_by_server(self, path: Path) -> Iterator[tuple[str, Sequence[int]]]:
        """A name for `path` that the server's user may walk: through a descriptor if its parents are closed to it."""
        if reachable(path, self.account) or sys.platform != "linux":
            yield str(path), ()
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{descriptor}", (descriptor,)
        finally:
            os.close(descriptor)

    def _give_away(self, *paths: Path) -> None:
        for path in paths:
            if self.account:
                os.chown(path, self.account.uid, self.account.gid)

    def _sentence(self, said: str) -> str:
        user = self.account.name if self.account else "you"
        for symptom, sentence in SYMPTOMS:
            if symptom in said:
                return sentence.format(directory=self.directory, user=user)
        lines = [line for line in said.splitlines() if "FATAL" in line or "error" in line] or said.splitlines()
        last = lines[-1].strip() if lines else "it said nothing"
        return f"PostgreSQL does not start in {self.directory} ({last}): see postgres.log there."


def _version_of(data: Path) -> int | None:
    """The major version that made `data`; None where there is no data directory yet."""
    try:
        if not data.exists():
            return None
        return int((data / "PG_VERSION").read_text().strip())
    except (OSError, ValueError) as error:
        raise ServerFailed(f"{data} is not a PostgreSQL data directory: move it away, or choose another one.") from error


def _flags(settings: Mapping[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in settings.items()]


def _postmaster(data: Path) -> tuple[int | None, str]:
    """Process id and state as postmaster.pid tells them: the file's first and eighth line."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        return int(lines[0]), lines[7].strip() if len(lines) > 7 else ""
    except (FileNotFoundError, ValueError, IndexError):
        return None, ""


def _command_line(pid: int) -> str:
    """How the process was started; empty when there is none (any more)."""
    proc = Path(f"/proc/{pid}/cmdline")
    if Path("/proc/self").exists():
        try:
            return proc.read_text(errors="replace")
        except OSError:
            return ""
    return subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True).stdout


def _kept_port(directory: Path) -> int:
    try:
        return int((directory / "postgres.port").read_text())
    except (OSError, ValueError):
        return 0


def _free_port(wanted: int) -> int:
    """`wanted` if nobody listens there, else one that the kernel picks."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _text_from(path: Path, begin: int) -> str:
    with open(path, "rb") as file:
        file.seek(begin)
        return file.read().decode(errors="replace")


@asynccontextmanager
async def _limit(what: str, seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise ServerFailed(f"{what} after {seconds:.0f} s: see postgres.log in its directory.") from error


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Fast shutdown; if that takes too long, an immediate one, from which the next start recovers."""
    for sign in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if process.returncode is not None:
            return
        process.send_signal(sign)
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            continue


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """In the child, before it becomes PostgreSQL: have the kernel ask it to stop when its parent dies."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGINT)

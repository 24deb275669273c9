"""Finds the database that a command means, and opens it as the owner."""

import asyncio
import getpass
import json
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import asyncpg

from allocator.cli.failures import Misused, explained
from allocator.config import load_settings
from allocator.local.data_directory import made_by_up, nearest
from allocator.logins import SecretMissing, dsn
from client.network import Connection

T = TypeVar("T")

ANOTHER_DATABASE = {"database", "database.host", "database.port", "database.name"}
"""Settings that mean a database which is not that of the data directory we happen to be in."""

CONNECT_SECONDS = 5.0
STATEMENT_SECONDS = 30.0

NOTHING_GIVEN = """There is no .lablink of yours here or in a directory above, so which database? Give --data-dir of \
a `lablink up`, or --set database.host=… with the owner's password in LABLINK_OWNER_PASSWORD."""


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
    return Place(url, started_here if made_by_up(directory) else "Check database.host and database.port.")


def public_url(data_dir: Path | None, settings: Sequence[str]) -> str:
    """Where people find the service of the database that is meant."""
    return load_settings(settings, settings_place(data_dir, settings)).server.url


def owner_dsn(data_dir: Path | None, settings: Sequence[str]) -> str:
    """Where to connect as the owner."""
    return asyncio.run(find(data_dir, settings)).dsn


def reachable_dsn(data_dir: Path | None, settings: Sequence[str]) -> str:
    """Where to connect as the owner, once the database has let us in; failures come with words."""

    async def where(url: str) -> str:
        return url

    return asked(where, data_dir, settings)


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

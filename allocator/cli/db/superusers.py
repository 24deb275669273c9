"""Superusers' connection strings: where an admin says that they are, never what they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from allocator.cli.database import settings_place
from allocator.cli.failures import Misused
from allocator.config import Database, load_settings
from allocator.logins import resolve, url

NOT_POINTED_TO = """{} takes no connection string, which everybody on this machine could read in the list of \
processes, but where it is: env:NAME, file:PATH or aws:NAME."""
NO_CONNECTION_STRING = """There is no connection string behind {}. It is \
postgresql://USER:PASSWORD@HOST:PORT/postgres, with what is special in a password percent-encoded."""


@dataclass(frozen=True, slots=True)
class Superuser:
    """What a connection string says of a superuser, or of a managed service's master user."""

    host: str | None
    port: int | None
    user: str
    password: str = field(repr=False)
    database: str
    options: Mapping[str, str]

    def dsn(self, database: Database) -> str:
        """Where to connect: at the address and with the TLS of `database`."""
        return url(database.model_copy(update={"name": self.database or "postgres"}), self.user, self.password)


async def pointed_to(reference: str, option: str = "--superuser") -> Superuser:
    """Who is behind `reference`, which was given as `option`. Raises Misused and SecretMissing; neither repeats it."""
    if not reference.startswith(("env:", "file:", "aws:")):
        raise Misused(NOT_POINTED_TO.format(option))
    given = await resolve(reference)
    try:
        parts = urlsplit(given)
        options = dict(parse_qsl(parts.query))
        host, port = options.get("host") or parts.hostname, parts.port or int(options.get("port", 0)) or None
    except ValueError:
        raise Misused(NO_CONNECTION_STRING.format(reference)) from None
    if parts.scheme not in ("postgres", "postgresql") or not parts.username:
        raise Misused(NO_CONNECTION_STRING.format(reference))
    user, password = unquote(parts.username), unquote(parts.password or "")
    return Superuser(host, port, user, password, parts.path.lstrip("/"), options)


async def superuser_dsn(database: Database, reference: str) -> str:
    """Where the superuser behind `reference` connects to the server of `database`, with the TLS of the settings."""
    given = await pointed_to(reference)
    if ((given.host or database.host).lower(), given.port or database.port) != (database.host.lower(), database.port):
        raise Misused(f"The connection string behind {reference} is not of database.host and database.port.")
    return given.dsn(database)


async def superuser_of(reference: str, data_dir: Path | None, settings: Sequence[str]) -> str:
    """The same of the database that a command means."""
    return await superuser_dsn(load_settings(settings, settings_place(data_dir, settings)).database, reference)

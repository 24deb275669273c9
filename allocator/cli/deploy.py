"""What `lablink db deploy` does: roles, database and tables on a server that may have none of them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from allocator import bootstrap, migrate
from allocator.cli.database import settings_place
from allocator.cli.failures import Misused, explained
from allocator.conf_files import override
from allocator.config import Database, load_settings
from allocator.secrets import dsn, resolve, url
from allocator.upkeep.target import Target
from client.network import is_loopback

NOT_POINTED_TO = """{} takes no connection string, which everybody on this machine could read in the list of \
processes, but where it is: env:NAME, file:PATH or aws:NAME."""
NO_CONNECTION_STRING = """There is no connection string behind {}. It is \
postgresql://USER:PASSWORD@HOST:PORT/postgres, with what is special in a password percent-encoded."""
OTHER_NAMES = f"The roles that are made are {bootstrap.OWNER} and {bootstrap.SERVICE}: leave database.*.user as it is."


@dataclass(frozen=True, slots=True)
class Deployed:
    """The version that the database has now, and the statements that the server refused and that are not needed."""

    version: str | None
    refused: list[str]


async def deploy(superuser: str, settings: Sequence[str]) -> Deployed:
    """Make what is missing, and the database of the newest version. Raises CommandFailed, SecretMissing.

    `superuser` points to the connection string of a superuser or of a managed service's master user.
    """
    database = load_settings(settings).database
    above = await superuser_dsn(database, superuser)
    owner = await dsn(database, database.owner)
    passwords = {login.user: await resolve(login.password) for login in (database.owner, database.service)}
    if set(passwords) != {bootstrap.OWNER, bootstrap.SERVICE}:
        raise Misused(OTHER_NAMES)
    with explained("Check database.host and database.port."):
        refused = await bootstrap.prepare(above, passwords, database.name)
        return Deployed(await migrate.upgrade(owner), refused)


async def superuser_dsn(database: Database, reference: str) -> str:
    """The connection string behind `reference`, at the address and with the TLS that the settings ask for."""
    host, port, user, password, name = _parts(await pointed_to(reference), reference)
    if ((host or database.host).lower(), port or database.port) != (database.host.lower(), database.port):
        raise Misused(f"The connection string behind {reference} is not of database.host and database.port.")
    return url(database.model_copy(update={"name": name or "postgres"}), user, password)


async def superuser_of(reference: str, data_dir: Path | None, settings: Sequence[str]) -> str:
    """The same of the database that a command means."""
    return await superuser_dsn(load_settings(settings, settings_place(data_dir, settings)).database, reference)


async def pointed_to(reference: str, option: str = "--superuser") -> str:
    """The connection string behind `reference`."""
    if not reference.startswith(("env:", "file:", "aws:")):
        raise Misused(NOT_POINTED_TO.format(option))
    return await resolve(reference)


async def target_of(reference: str, data_dir: Path | None, settings: Sequence[str]) -> tuple[Target, list[str]]:
    """Where `lablink db move` goes, and the settings that lead there. Raises CommandFailed, SecretMissing, ConfigError.

    Its authority is the connection string's `sslrootcert`, else that of the settings.
    """
    given = await pointed_to(reference, "--to")
    host, port, user, password, name = _parts(given, reference)
    if not host:
        raise Misused(NO_CONNECTION_STRING.format(reference))
    options = dict(parse_qsl(urlsplit(given).query))
    tls = "loopback" if is_loopback(host) and options.get("sslmode") != "verify-full" else "verify-full"
    there = [_setting("database.host", host), f"database.port={port or 5432}", f"database.tls={tls}"]
    if authority := options.get("sslrootcert"):
        there.append(_setting("database.ca_file", authority))
    directory = settings_place(data_dir, settings)
    database = load_settings([*settings, *there], directory).database
    passwords = {login.user: await resolve(login.password) for login in (database.owner, database.service)}
    if set(passwords) != {bootstrap.OWNER, bootstrap.SERVICE}:
        raise Misused(OTHER_NAMES)
    above = url(database.model_copy(update={"name": name or "postgres"}), user, password)
    return Target(above, await dsn(database, database.owner), passwords), there


def _setting(key: str, value: str) -> str:
    """For an admin to type: quoted only where it must be."""
    return f"{key}={value}" if re.fullmatch(r"[A-Za-z0-9._/-]+", value) else override(key, value)


def _parts(given: str, reference: str) -> tuple[str | None, int | None, str, str, str]:
    """Host, port, user, password and database of a connection string, which no message repeats."""
    try:
        parts = urlsplit(given)
        host, port = dict(parse_qsl(parts.query)).get("host") or parts.hostname, parts.port
    except ValueError:
        raise Misused(NO_CONNECTION_STRING.format(reference)) from None
    if parts.scheme not in ("postgres", "postgresql") or not parts.username:
        raise Misused(NO_CONNECTION_STRING.format(reference))
    return host, port, unquote(parts.username), unquote(parts.password or ""), parts.path.lstrip("/")

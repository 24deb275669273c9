"""How one logs in to the database: a secret, fetched from where it is when it is needed, in a connection string."""

import asyncio
import json
import os
from pathlib import Path
from urllib.parse import quote, urlencode

from allocator.config import Database, Login


class SecretMissing(Exception):
    """A secret is not where the configuration says; the message says where that is, never what."""


async def resolve(reference: str) -> str:
    """The secret behind `env:NAME`, `file:PATH` or `aws:NAME-OR-ARN`, `aws:…#KEY` for one key of a JSON secret.

    Raises SecretMissing.
    """
    kind, _, place = reference.partition(":")
    if kind == "env":
        return _from_environment(place)
    if kind == "file":
        return _from_file(Path(place))
    return await asyncio.to_thread(_from_aws, place)


async def dsn(database: Database, login: Login) -> str:
    """Where to connect as `login`, with its password and the TLS that is asked for."""
    return url(database, login.user, await resolve(login.password))


def url(database: Database, user: str, password: str) -> str:
    """Where to connect as `user`, with the TLS that is asked for."""
    tls = {"sslmode": "disable"}
    if database.tls == "verify-full":
        tls = {"sslmode": "verify-full", "sslrootcert": str(database.ca_file)}
    where = f"[{database.host}]:{database.port}" if ":" in database.host else f"{database.host}:{database.port}"
    if database.host.startswith("/"):
        where, tls = "", {"host": database.host, "port": str(database.port), **tls}
    return f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@{where}/{database.name}?{urlencode(tls)}"


def _from_environment(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise SecretMissing(f"The environment variable {name} is not set: it must hold a secret.")
    return value


def _from_file(path: Path) -> str:
    try:
        value = path.read_text().strip()
    except OSError as error:
        raise SecretMissing(f"The secret file {path} cannot be read ({error.strerror}).") from error
    if not value:
        raise SecretMissing(f"The secret file {path} is empty.")
    return value


def _from_aws(place: str) -> str:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    name, _, key = place.partition("#")
    try:
        value = boto3.client("secretsmanager").get_secret_value(SecretId=name)["SecretString"]
    except (BotoCoreError, ClientError, KeyError) as error:
        raise SecretMissing(f"Secrets Manager does not give the secret {name} ({error}).") from error
    return _picked(name, value, key) if key else value


def _picked(name: str, value: str, key: str) -> str:
    try:
        return str(json.loads(value)[key])
    except (ValueError, KeyError, TypeError) as error:
        raise SecretMissing(f"The secret {name} is not JSON with a key {key!r}.") from error

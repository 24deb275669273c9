"""How far one gets on the way to a database: name, port, TLS, password, database; and what stands in the way."""

import asyncio
import errno
import os
import socket
import ssl
from dataclasses import dataclass

import asyncpg

from allocator import logins
from allocator.config import Database, Login
from allocator.logins import SecretMissing
from client.network import Connection

SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What stands in the way, and what to do about it."""

    step: str
    what: str
    cure: str


async def door(database: Database) -> Obstacle | None:
    """Whether the server's name leads somewhere and somebody answers on its port; None when so."""
    host, port = database.host, database.port
    try:
        if not host.startswith("/"):
            await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        what = f"The name {host} leads nowhere ({error.strerror})."
        return Obstacle("name", what, "Check database.host, and the name server of this machine.")
    try:
        async with asyncio.timeout(SECONDS):
            opened = asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}") if host.startswith("/") else None
            _, writer = await (opened or asyncio.open_connection(host, port))
            writer.close()
    except TimeoutError:
        what = f"{host}:{port} does not answer: what is sent there gets lost."
        return Obstacle("port", what, "Check the firewall or security group between here and there.")
    except OSError as error:
        what = f"Nobody listens on {host}:{port} ({in_words(error)})."
        return Obstacle("port", what, "Start PostgreSQL, or check database.host and database.port.")
    return None


async def enter(database: Database, login: Login) -> Connection | Obstacle:
    """A connection as `login`, which the caller closes; else what stands in the way."""
    try:
        dsn = await logins.dsn(database, login)
        return await asyncpg.connect(dsn, timeout=SECONDS, server_settings={"application_name": "lablink doctor"})
    except SecretMissing as error:
        return Obstacle("secrets", str(error), "Put the secret there, or change database.*.password.")
    except ssl.SSLCertVerificationError as error:
        return _distrusted(database, error)
    except (ssl.SSLError, ConnectionError) as error:
        return _without_tls(database, error)
    except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError) as error:
        what = f"PostgreSQL does not finish its greeting ({error or type(error).__name__})."
        return Obstacle("port", what, "Check that it is a PostgreSQL that listens there.")
    except asyncpg.PostgresError as error:
        return _refused(database, login, error)


def in_words(error: OSError) -> str:
    """What the operating system says, for the middle of a sentence: without addresses and numbers."""
    if str(error).startswith("Multiple exceptions"):  # asyncio's, where a name has several addresses
        return "on none of its addresses"
    numbered = error.errno in errno.errorcode and not isinstance(error, socket.gaierror)
    said = os.strerror(error.errno or 0) if numbered else error.strerror
    return said.lower() if said else str(error).strip().rstrip(".") or type(error).__name__


def _distrusted(database: Database, error: ssl.SSLCertVerificationError) -> Obstacle:
    cures = {
        "expired": "Renew the server's certificate.",
        "mismatch": f"Use the name that is in the certificate, or have one made for {database.host}.",
        "not valid for": f"Use the name that is in the certificate, or have one made for {database.host}.",
        "issuer": "Give database.ca_file the authority that signed it (RDS: its CA bundle).",
        "self-signed": "Give database.ca_file the authority that signed it (RDS: its CA bundle).",
    }
    said = error.verify_message or str(error)
    cure = next((cure for word, cure in cures.items() if word in said), "Check database.ca_file.")
    return Obstacle("tls", f"The server's certificate is not trusted: {said}.", cure)


def _without_tls(database: Database, error: OSError) -> Obstacle:
    if database.tls == "verify-full":
        what = f"The server does not do TLS ({error})."
        return Obstacle("tls", what, "Give it a certificate (ssl = on). If it had one, somebody is in between.")
    return Obstacle("port", f"The server hangs up ({error}).", "Read PostgreSQL's log.")


def _refused(database: Database, login: Login, error: asyncpg.PostgresError) -> Obstacle:
    """What the server said, under the step that it belongs to."""
    user, said = login.user, str(error).rstrip(".")
    if isinstance(error, asyncpg.InvalidPasswordError):
        cure = "Set the right one where database.*.password points, or set it on the server: lablink db deploy"
        return Obstacle("password", f"The password of {user} is not right ({said}).", cure)
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return Obstacle("database", f"There is no database {database.name}.", "lablink db deploy")
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return Obstacle("password", f"The server does not let {user} in: {said}.", "Check pg_hba.conf: lablink db hba")
    if isinstance(error, asyncpg.TooManyConnectionsError):
        cure = "lablink db connections shows whose they are; lablink db tune says how many there should be."
        return Obstacle("room", f"Every connection is taken ({said}).", cure)
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return Obstacle("database", f"{user} may not enter {database.name} ({said}).", "lablink db deploy")
    return Obstacle("database", f"The server refuses: {said}.", "Try again in a minute; read PostgreSQL's log.")

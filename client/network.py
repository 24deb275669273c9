"""What holds for every connection: where it may lead, whom it trusts, and how it notices that its peer is gone."""

import asyncio
import ipaddress
import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

import asyncpg

from client.protocol import DatabaseAddress

KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 15_000}
"""Asked for on our side: asyncpg leaves the kernel's two hours."""

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection


class InsecureAddress(Exception):
    """The database would be reached in a way that others can read or imitate."""


def is_loopback(host: str) -> bool:
    """Whether a connection to `host` stays on this machine: a Unix socket's directory, localhost, 127.0.0.0/8, ::1."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost" or host.startswith("/")


def keep_alive(connection: socket.socket) -> None:
    """Have the kernel probe an idle connection, and give up in 15 to 25 s on one that nobody acknowledges."""
    if connection.family == socket.AF_UNIX:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def tls_of(address: DatabaseAddress) -> ssl.SSLContext | Literal["disable"]:
    """How the connection is protected: not at all on this machine, else verify-full. Raises InsecureAddress."""
    if address.tls == "verify-full":
        return ssl.create_default_context(cadata=address.ca_pem)
    if address.tls == "loopback" and is_loopback(address.host):
        return "disable"
    raise InsecureAddress(
        f"The database at {address.host} is not on this machine, so it must be reached with TLS verify-full, but the "
        f"credential says {address.tls!r}. Set the allocator's database.tls to verify-full and enrol again."
    )


class KeptAlive(Connection):
    """A connection to PostgreSQL that notices within seconds when the other side is gone."""

    def __init__(self, protocol: Any, transport: asyncio.BaseTransport, *others: Any) -> None:
        super().__init__(protocol, transport, *others)
        keep_alive(transport.get_extra_info("socket"))


async def hang_up(connection: Connection, seconds: float) -> None:
    """Close it, at once when the server takes longer than that to: whatever was asked over it has been answered."""
    with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        await connection.close(timeout=seconds)


def distrust(error: BaseException) -> str | None:
    """Why a database is not spoken to although it answers, in a sentence; None when `error` says something else."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message.rstrip(".")
        return f"The certificate of the database cannot be trusted ({why}): check database.host and database.ca_file."
    if isinstance(error, ConnectionError) and "SSL upgrade" in str(error):
        return "The database offers no TLS, and without nothing is sent to it: set ssl = on in its postgresql.conf."
    return None

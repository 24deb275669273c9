"""`lablink serve`: the allocator."""

import asyncio
import gc
import resource
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli.options import DataDir, Settings

if TYPE_CHECKING:
    from allocator.config import Server
    from allocator.config import Settings as Loaded

COLLECT_AFTER = 10_000
"""New objects before garbage is looked for. After the usual 700 it was looked for among all that 10,000 machines need,
four tenths of a second each time, whenever some thousand people had come at once."""

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="The same as --set.")]
Descriptor = Annotated[
    int | None, typer.Option("--fd", metavar="N", min=3, help="Accept on this open socket, not on host and port.")
]


def serve(
    overrides: Overrides = None, data_dir: DataDir = None, settings: Settings = None, fd: Descriptor = None
) -> None:
    """Run the allocator: the web page, the HTTP API and the sweeps.

    PostgreSQL may come later or go away for a while: requests are answered 503 meanwhile. Run as many as you like on
    one database. Beside a .lablink its settings hold, unless others are given; --set database.host=… means another
    database. Secrets are never settings; settings say where they are (env:NAME, file:PATH, aws:NAME).

    Examples:

    - `lablink serve --data-dir .lablink`
    - `lablink serve --set database=server --set database.host=db.example.org --set database.ca_file=rds.pem`
    """
    from allocator.cli.failures import CommandFailed
    from allocator.server import new_server

    loaded = settings_of(data_dir, [*(overrides or []), *(settings or [])])
    allow_many_connections()
    with listener_of(loaded.server, fd) as listener:
        server = new_server(loaded)
        gc.freeze()  # what stays for good is not looked at again; what comes and goes is, now and then
        gc.set_threshold(COLLECT_AFTER)
        server.run(sockets=[listener])
    if not server.started:
        raise CommandFailed("The allocator did not start: see the lines above.")


def settings_of(data_dir: Path | None, given: list[str]) -> "Loaded":
    """The settings, with certificate and passwords where they say. Raises ConfigError and SecretMissing."""
    from allocator.cli.database import settings_place
    from allocator.config import load_settings
    from allocator.logins import resolve

    loaded = load_settings(given, settings_place(data_dir, given))
    require_certificate(loaded.server)
    asyncio.run(resolve(loaded.database.service.password))
    if loaded.backup.every_hours or loaded.fleet.settings:
        asyncio.run(resolve(loaded.database.owner.password))
    return loaded


def allow_many_connections() -> None:
    """Have as many files open as this process may: each machine of the hub is one, and systemd begins with 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def require_certificate(server: "Server") -> None:
    """See that the service can show its certificate, if it has one. Raises ConfigError."""
    from allocator.conf_files import ConfigError

    if server.certificate is None or server.key is None:
        return
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(server.certificate, server.key, password="")  # OpenSSL would ask at the terminal
    except ssl.SSLError:
        raise ConfigError(
            f"server.key: must be the private key of {server.certificate}; both in PEM, the key without a password"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"server.certificate: it and server.key must be files that can be read ({error.strerror})"
        ) from error


def listener_of(server: "Server", fd: int | None) -> socket.socket:
    """The socket to accept on: an open one that was handed to us, or one at the host and port that are set."""
    from allocator.cli.failures import CommandFailed
    from allocator.server import BACKLOG
    from allocator.upkeep.way_in import in_words

    try:
        if fd is not None:
            return socket.socket(fileno=fd)
        family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
        listener = socket.create_server((server.host, server.port), family=family, backlog=BACKLOG)
        # Inherited by what it accepts; asyncio sets it only where the protocol is named, which create_server does not.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        where = f"Descriptor {fd}" if fd is not None else f"{server.host} port {server.port}"
        raise CommandFailed(
            f"{where} cannot be listened on ({in_words(error)}): choose another server.host or server.port."
        ) from error

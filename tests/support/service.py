"""The service on a test's database, on a real port, and a machine's client played by hand."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID

import asyncpg
import httpx

from allocator.config import Settings, load_settings
from allocator.server import Server, new_server
from allocator.service import Service
from tests.support import LIMIT_SECONDS
from tests.support.database import Database, Vm
from tests.support.wire import Wire

BACKLOG = 512
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients that speak plain HTTP: without it httpx reads all certificate authorities for each, in 50 ms."""
PROGRAMS = "echo,sleep,python3"
DESKTOP_LINE = (
    'DISPLAY= /opt/google/chrome-remote-desktop/start-host --code="4/0AVG7fiQabcdefghijklmnop" '
    '--redirect-url="https://remotedesktop.google.com/_/oauthredirect" --name=$(hostname)'
)


def settings_for(database: Database, directory: Path, *overrides: str, wire: Wire | None = None) -> Settings:
    """Settings as `overrides_for` gives them, loaded."""
    return load_settings([*overrides_for(database, directory, wire), *overrides])


def overrides_for(database: Database, directory: Path, wire: Wire | None = None) -> list[str]:
    """What leads a service to the test's database, its password in a file of `directory`; with `wire`, over that.

    It asks through the server's pooler if there is one.
    """
    parts = urlsplit(database.dsn("lablink_app"))
    port, pooler_port = (wire.port, wire.pooler_port) if wire else (parts.port, database.server.pooler_port)
    password = directory / "app-password"
    password.write_text(unquote(parts.password or ""))
    return [
        f"database.host={parts.hostname}",
        f"database.port={port}",
        f"database.name={database.name}",
        f"database.pooler_port={pooler_port or 'null'}",
        f"database.service.password='file:{password}'",
        f"pool.programs=[{PROGRAMS}]",
        "sweeps.period_seconds=0.2",
    ]


@dataclass(slots=True)
class RunningService:
    """A service that answers at `url`."""

    url: str
    service: Service
    server: Server
    ended: "asyncio.Task[None]"

    def client(self, **options: Any) -> httpx.AsyncClient:
        """An HTTP client of the service, with cookies of its own."""
        return httpx.AsyncClient(base_url=self.url, timeout=LIMIT_SECONDS, verify=NO_TLS, **options)

    async def stop(self) -> None:
        """Tell it to stop, as a signal would, and wait until it has."""
        self.server.should_exit = True
        async with asyncio.timeout(LIMIT_SECONDS):
            await asyncio.shield(self.ended)


@asynccontextmanager
async def running_service(settings: Settings) -> AsyncIterator[RunningService]:
    """The service on a free port of this machine, in this process; ready when the block begins."""
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listener:
        server = new_server(settings)
        ended = asyncio.create_task(server.serve([listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            async with httpx.AsyncClient(timeout=LIMIT_SECONDS, verify=NO_TLS) as client:
                await client.get(f"{url}/livez")  # waits at the socket until the service has started
            yield RunningService(url, server.config.app.state.service, server, ended)  # type: ignore[union-attr]
        finally:
            server.should_exit = True
            await ended


async def ready(service: Service) -> None:
    """Return once the service hears changes and has set up its pool."""
    async with asyncio.timeout(LIMIT_SECONDS):
        await service.feed.listening.wait()
        await service.sweeper.in_contact.wait()


async def connected(service: Service) -> None:
    """Return once all connections are open that it asks over.

    To open one amid a crowd takes a busy computer longer than anybody waits for it.
    """
    await asyncio.gather(*(service.store.tally() for _ in range(service.settings.database.connections)))


@dataclass(slots=True)
class PlayedClient:
    """A machine's client, each step of which the test says."""

    connection: "asyncpg.Connection[asyncpg.Record]"

    @classmethod
    async def of(cls, vm: Vm) -> "PlayedClient":
        """The client of an enrolled machine."""
        return cls(await vm.connect())

    async def hello(self) -> asyncpg.Record:
        """Say hello as a machine that remembers nothing."""
        row = await self.connection.fetchrow("SELECT * FROM client_api.hello(0, NULL)")
        assert row is not None
        return row

    async def claim(self) -> asyncpg.Record:
        """Take up the command."""
        orders = await self.hello()
        row = await self.connection.fetchrow("SELECT * FROM client_api.claim($1)", orders["epoch"])
        assert row is not None
        return row

    async def report(
        self, outcome: str, exit_code: int | None = None, output: str = "", failure: str | None = None
    ) -> None:
        """Tell how the command goes."""
        orders = await self.hello()
        await self.connection.execute(
            "SELECT client_api.report($1, $2, $3, $4, $5, $6)",
            orders["lease_id"],
            orders["epoch"],
            outcome,
            exit_code,
            output,
            failure,
        )

    async def clean(self) -> None:
        """Confirm the wipe."""
        orders = await self.hello()
        await self.connection.execute("SELECT client_api.cleaned($1)", orders["epoch"])


@dataclass(slots=True)
class EventStream:
    """A page's stream of events, read one by one under a limit."""

    response: httpx.Response
    lines: AsyncIterator[str]
    seconds: float

    async def next(self, *names: str) -> str:
        """The data of the next event that has one of these names. Fails when the stream ends first."""
        async with asyncio.timeout(self.seconds):
            while event := await self._event():
                if event[0] in names:
                    return event[1]
        raise AssertionError(f"the stream ended before {' or '.join(names)}")

    async def rest(self) -> list[str]:
        """The names of the events that are left, once the stream has ended by itself."""
        names = []
        async with asyncio.timeout(self.seconds):
            while event := await self._event():
                names.append(event[0])
        return names

    async def _event(self) -> tuple[str, str] | None:
        name, data = "", []
        async for line in self.lines:
            field_name, _, value = line.partition(": ")
            if field_name == "event":
                name = value
            elif field_name == "data":
                data.append(value)
            elif not line and name:
                return name, "\n".join(data)
        return None


@asynccontextmanager
async def streaming(client: httpx.AsyncClient, path: str, seconds: float = LIMIT_SECONDS) -> AsyncIterator[EventStream]:
    """The stream at `path`, open until the block ends; each of its events is waited for so long."""
    async with client.stream("GET", path, timeout=seconds) as response:
        assert response.status_code == 200
        yield EventStream(response, response.aiter_lines(), seconds)


def lease_of(answer: httpx.Response) -> UUID:
    """The lease that an answer tells of: in its body, or where it leads."""
    if "location" in answer.headers:
        return UUID(answer.headers["location"].rpartition("/")[2])
    return UUID(json.loads(answer.content)["id"])

"""A PostgreSQL with a pg_hba.conf and a certificate of the test's, and a way to it from elsewhere."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from allocator import bootstrap, migrate
from allocator.local import UpFailed
from allocator.local.accounts import account_of_server
from allocator.local.postgres import Server, running_server
from allocator.local.postgres_binaries import OLDEST, find_binaries
from tests.support.database import PASSWORDS
from tests.support.server import PREFIX, copy_data, fresh_server
from tests.support.up import open_directory

NEWEST = 20
"""Versions up to this are looked for."""

ELSEWHERE = "127.0.0.2"
"""An address of this machine's that is none of those by which pg_hba.conf knows this machine."""


def version_with_tls(wanted: int = OLDEST) -> int:
    """The version of a server here that was built with TLS, `wanted` if it was; the wheel's are not. Skips the test."""
    versions: list[int] = [wanted, *range(OLDEST, NEWEST + 1)]
    for version in versions:
        try:
            program = find_binaries(version).directory / "postgres"
        except UpFailed:
            continue
        if b"SSL is not supported by this build" not in program.read_bytes():
            return version
    raise pytest.skip.Exception("no PostgreSQL on this machine was built with TLS: apt install postgresql")


@asynccontextmanager
async def server_with(
    hba: str, version: int, settings: Mapping[str, str], certificate: tuple[bytes, bytes] | None = None
) -> AsyncIterator[Server]:
    """A server with LabLink's roles and database, whose pg_hba.conf is `hba`, with TLS if it has a certificate."""
    with open_directory() as directory:
        await copy_data(await _deployed(version), directory)
        more = {"hba_file": str(_given(directory / "hba", hba.encode()))}
        if certificate:
            chain, key = _given(directory / "cert.pem", certificate[0]), _given(directory / "key.pem", certificate[1])
            more |= {"ssl": "on", "ssl_cert_file": str(chain), "ssl_key_file": str(key)}
        async with running_server(directory, version=version, settings={**settings, **more}) as own:
            yield own


async def _deployed(version: int) -> Path:
    """A directory with the data of a server that has LabLink's roles and database, made once for this process."""
    if version not in _made:
        made = tempfile.TemporaryDirectory(prefix=PREFIX)
        directory = Path(made.name)
        directory.chmod(0o755)
        async with fresh_server(directory, version) as first:
            await bootstrap.prepare(first.dsn(), PASSWORDS)
            await migrate.upgrade(first.dsn("lablink", PASSWORDS["lablink"], bootstrap.DATABASE))
        _made[version] = made
    return Path(_made[version].name)


_made: dict[int, tempfile.TemporaryDirectory[str]] = {}


@asynccontextmanager
async def from_elsewhere(port: int) -> AsyncIterator[int]:
    """The port of a way to the server at `port` on which it sees clients come from ELSEWHERE."""
    async with AsyncExitStack() as ways:

        async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inward, outward = await asyncio.open_connection("127.0.0.1", port, local_addr=(ELSEWHERE, 0))
            ways.callback(outward.close)
            ways.callback(writer.close)
            await asyncio.gather(_copy(reader, outward), _copy(inward, writer))

        way = await asyncio.start_server(carry, "127.0.0.1", 0)
        ways.callback(way.close)
        yield int(way.sockets[0].getsockname()[1])


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # either side hung up
    finally:
        writer.close()


def _given(path: Path, content: bytes) -> Path:
    """A file that belongs to whoever runs the server."""
    path.write_bytes(content)
    path.chmod(0o600)
    if account := account_of_server():
        os.chown(path, account.uid, account.gid)
    return path

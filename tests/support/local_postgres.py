"""What tests of the server of `lablink up` share."""

import os
from pathlib import Path

import asyncpg
import pytest

from allocator.local.postgres import Server
from allocator.local.postgres_binaries import find_binaries
from tests.support.server import initialise
from tests.support.up import free_port

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="PostgreSQL refuses root alone, and root alone mounts a disk")

FAST = {"fsync": "off"}


async def ask(server: Server, question: str) -> object:
    """What a server answers."""
    connection = await asyncpg.connect(server.dsn())
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


def kept_port(directory: Path) -> Path:
    """The file with the port of the server under a directory."""
    return directory / "postgres.port"


def keep_port(directory: Path) -> int:
    """From its next start on the server has a port that nobody else is given while it is down."""
    port = free_port()
    kept_port(directory).write_text(str(port))
    return port


async def initialised(directory: Path) -> Path:
    """The directory, with data that is as initdb leaves it, and such a port."""
    directory.mkdir()
    await initialise(directory, find_binaries(None).version)
    keep_port(directory)
    return directory

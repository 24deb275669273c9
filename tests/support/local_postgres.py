"""What tests of the server of `lablink up` share."""

import os

import asyncpg
import pytest

from allocator.local.postgres import Server

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="PostgreSQL refuses root alone, and root alone mounts a disk")

FAST = {"fsync": "off"}


async def ask(server: Server, question: str) -> object:
    """What a server answers."""
    connection = await asyncpg.connect(server.dsn())
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()

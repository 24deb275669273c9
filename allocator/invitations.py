"""Invites a machine: makes the join token with which it may enrol once, and which nobody else is told."""

import secrets

from allocator.tokens import sha256
from client.network import Connection


async def invite_vm(connection: Connection, hostname: str, pool: str, seconds: int) -> str:
    """Let a machine of that name enrol within `seconds`; returns the join token, of which only a hash is kept.

    `connection` is the owner's. Raises what asyncpg does.
    """
    token = secrets.token_urlsafe(32)
    await connection.execute("SELECT invite_vm($1, $2, $3, $4)", hostname, pool, sha256(token), seconds)
    return token

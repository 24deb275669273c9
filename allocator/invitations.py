"""Invites machines: makes the join token with which each may enrol once, and which nobody else is told."""

import secrets
from collections.abc import Mapping

from allocator.tokens import sha256
from client.network import Connection

INVITE = """
    SELECT invite_vm(hostname, pool, token, $4)
    FROM unnest($1::text[], $2::text[], $3::bytea[]) AS t (hostname, pool, token)
"""


async def invite_vm(connection: Connection, hostname: str, pool: str, seconds: int) -> str:
    """Let a machine of that name enrol within `seconds`; returns the join token, of which only a hash is kept.

    `connection` is the owner's. Raises what asyncpg does.
    """
    return (await invite_vms(connection, {hostname: pool}, seconds))[hostname]


async def invite_vms(connection: Connection, pools: Mapping[str, str], seconds: int) -> dict[str, str]:
    """The same for all of these machines or none, by hostname and pool; returns each one's token."""
    tokens = {hostname: secrets.token_urlsafe(32) for hostname in pools}
    hashes = [sha256(token) for token in tokens.values()]
    await connection.execute(INVITE, list(pools), list(pools.values()), hashes, seconds)
    return tokens

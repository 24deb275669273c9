"""Invites machines that Terraform made: each one's join token goes into its own secret, and nowhere else."""

import asyncio
from collections.abc import Mapping

from allocator.fleet import record
from allocator.fleet.description import Fleet
from allocator.invitations import invite_vms
from allocator.operations import Tell
from client.network import Connection

TOKEN_SECONDS = 3600
"""An instance that has not enrolled an hour after its start will not: it is replaced."""


async def invite(fleet: Fleet, connection: Connection, pools: Mapping[str, str], tell: Tell) -> list[str]:
    """Let each machine enrol once, by hostname and pool; returns who was invited. Raises CloudRefused.

    Whoever is killed here invites again the next time: the token of before is then in no secret.
    """
    tokens = await invite_vms(connection, pools, TOKEN_SECONDS)
    secrets = {fleet.secret_of(hostname): token for hostname, token in tokens.items()}
    giving = [asyncio.create_task(fleet.cloud.put_secret(*each)) for each in secrets.items()]
    try:
        for done, given in enumerate(asyncio.as_completed(giving), 1):
            await given
            await tell(done, len(pools), "inviting")
    finally:  # none comes after that of the next time
        await asyncio.gather(*giving, return_exceptions=True)
    await record.invited(connection, pools)
    return list(pools)

"""What machines of a test's fleet do, and people with them."""

import hashlib

import asyncpg

from client.scram import verifier
from tests.sql.steps import ADA, ask, lease_of
from tests.support.cloud import Aws
from tests.support.database import Database


async def arrives(database: Database, aws: Aws, hostname: str) -> None:
    """The instance boots: it enrols with the token in its secret, and is available."""
    owner, digest = await database.connect("lablink"), hashlib.sha256(aws.token(hostname).encode()).digest()
    instance = aws.instances()[hostname]
    row = await owner.fetchrow(
        "SELECT * FROM enrol_instance($1, $2, $3, clock())", digest, verifier("password"), instance
    )
    assert row is not None
    client = await database.keep(database.server.dsn(database.name, row["role"], "password"))
    await client.execute("SELECT client_api.hello(0, NULL)")


async def lend(database: Database) -> asyncpg.Record:
    """Ada is on a machine."""
    service, owner = await database.connect("lablink_app"), await database.connect("lablink")
    return await lease_of(owner, (await ask(service, ADA))["lease_id"])

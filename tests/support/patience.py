"""The limits of a service in a test's own process: where a computer stands still for seconds, none of them passes."""

import asyncpg
import pytest

from tests.support.database import Database

LIMITS = {"statement_timeout": "50s", "lock_timeout": "40s", "idle_in_transaction_session_timeout": "60s"}

PATIENT = {
    "allocator.asking.WAIT_SECONDS": 30.0,
    "allocator.connection.CONNECT_SECONDS": 30.0,
    "allocator.connection.COMMAND_SECONDS": 60.0,
    "allocator.connection.LIMITS": LIMITS,
    "allocator.health.READY_SECONDS": 30.0,
    "allocator.upkeep.way_in.SECONDS": 30.0,
    "client.ec2._SECONDS": 60,
    "client.enrol._LIMIT_SECONDS": 60,
}
"""What a service reads when it needs it, and has instead of its own."""


def make_patient(patch: pytest.MonkeyPatch) -> None:
    """Services that are started from now on wait longer than a computer stands still."""
    for name, value in PATIENT.items():
        patch.setattr(name, value)


async def patient_role(database: Database) -> None:
    """The same of services that ask this database through a pooler: there the limits are those of their role."""
    superuser = await asyncpg.connect(database.dsn("postgres"))
    for name, value in LIMITS.items():
        await superuser.execute(f"ALTER ROLE lablink_app IN DATABASE {database.name} SET {name} = '{value}'")
    await superuser.close()

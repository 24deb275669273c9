"""A `lablink` command while it runs."""

import asyncio
import os
import subprocess
import sys

from tests.support.admin import place
from tests.support.database import PASSWORDS, Database


async def started(database: Database, *arguments: str, stdout: int = subprocess.PIPE) -> asyncio.subprocess.Process:
    """A command under way, which waits longer for PostgreSQL than it usually would."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.patient_command"),
        *arguments,
        *place(database.dsn("lablink")),
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, "OWNER": PASSWORDS["lablink"]},
    )

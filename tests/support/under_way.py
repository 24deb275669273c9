"""A `lablink` command while it runs."""

import asyncio
import os
import subprocess

from tests.support.admin import place
from tests.support.database import PASSWORDS, Database
from tests.support.up import LABLINK


async def started(database: Database, *arguments: str) -> asyncio.subprocess.Process:
    """A command under way."""
    return await asyncio.create_subprocess_exec(
        LABLINK,
        *arguments,
        *place(database.dsn("lablink")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OWNER": PASSWORDS["lablink"]},
    )

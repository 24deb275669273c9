"""Runs the `lablink` command on a test's database, as an admin would."""

import asyncio
import json
import subprocess
from typing import Any
from urllib.parse import urlsplit

from tests.support.database import PASSWORDS, Database
from tests.support.up import run_lablink

Done = subprocess.CompletedProcess[str]


def place(dsn: str) -> list[str]:
    """The settings that lead the command to the database of a DSN."""
    parts = urlsplit(dsn)
    return [
        f"--set=database.host={parts.hostname}",
        f"--set=database.port={parts.port}",
        f"--set=database.name={parts.path.lstrip('/')}",
        "--set=database.owner.password=env:OWNER",
        "--set=database.service.password=env:SERVICE",
    ]


async def lablink(database: Database, *arguments: str, **environment: str) -> Done:
    """Run a command on the database to its end."""
    passwords = {"OWNER": PASSWORDS["lablink"], "SERVICE": PASSWORDS["lablink_app"]}
    options = place(database.dsn("lablink"))
    return await asyncio.to_thread(run_lablink, *arguments, *options, **(passwords | environment))


async def answer(database: Database, *arguments: str, code: int = 0, **environment: str) -> Any:
    """What a command prints with --json when it ends with `code`."""
    done = await lablink(database, *arguments, "--json", **environment)
    assert done.returncode == code, done.stderr or done.stdout
    return json.loads(done.stdout)


async def ask(database: Database, email: str, program: str = "echo") -> None:
    """Somebody asks for a machine that runs a program."""
    owner = await database.connect()
    await owner.execute("SELECT ensure_pool('default', true, ARRAY['echo'], 3600, 60, 3600)")
    await owner.execute(
        "SELECT request_vm($1, 'job', $2, NULL, $3, '', '')", email, json.dumps({"argv": [program]}), program
    )

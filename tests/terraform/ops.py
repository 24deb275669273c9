"""Somebody who types `lablink fleet …`, on a stand-in for AWS."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

from tests.support.admin import place
from tests.support.cloud import Aws
from tests.support.database import PASSWORDS, Database
from tests.support.up import LABLINK


class Ops:
    """Their terminal: the settings are given with every command."""

    def __init__(self, database: Database, aws: Aws, work: Path, environment: dict[str, str]) -> None:
        self.work = work
        settings = [f"--set={each}" for each in aws.options(work)]
        self._where = [*place(database.dsn("lablink")), *settings]
        passwords = {"OWNER": PASSWORDS["lablink"], "SERVICE": PASSWORDS["lablink_app"], "NO_COLOR": "1"}
        self._environment = environment | aws.environment | passwords

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Type it, and do not wait."""
        return subprocess.Popen(
            [LABLINK, "fleet", *words, *self._where],
            env=self._environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    async def type(self, *words: str, code: int = 0) -> str:
        """Type it; returns what it says."""
        return await self.said(self.start(*words), code)

    async def said(self, process: subprocess.Popen[str], code: int = 0) -> str:
        """What it says, when it has ended with that code."""
        said, complained = await asyncio.to_thread(process.communicate)
        assert process.returncode == code, said + complained
        return said + complained

    async def json(self, *words: str) -> Any:
        """What it prints as JSON."""
        return json.loads(await self.type(*words, "--json"))

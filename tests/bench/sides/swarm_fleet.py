"""A database with thousands of machines that have credentials, and the processes in which these machines live."""

import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.scram import hub_sha256, verifier
from tests.bench.ground import Ground
from tests.bench.sides.swarm import password
from tests.bench.workers import Worker, workers

WORKING, LISTENING = "tests.bench.sides.swarm", "tests.bench.sides.listeners"
MAKE_ROLES = """
    DO $$ DECLARE machine name; BEGIN
        FOR machine IN SELECT 'lablink_vm_' || lpad(to_hex(g), 16, '0') FROM generate_series(1, %d) g
                       EXCEPT SELECT rolname FROM pg_roles LOOP
            EXECUTE format('CREATE ROLE %%I LOGIN CONNECTION LIMIT 3 IN ROLE lablink_client', machine);
        END LOOP;
    END $$
"""
KEEP_TOKENS = """
    UPDATE vm_roles r SET hub_sha256 = t.token FROM unnest($1::bytea[]) WITH ORDINALITY AS t (token, n)
    WHERE r.role = 'lablink_vm_' || lpad(to_hex(t.n), 16, '0')
"""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Machines of a database: how many, and what their passwords are made of."""

    own: Ground
    database: str
    size: int
    seed: str

    def tasks(self, url: str, numbers: Sequence[int] = (), *, hurry: float | None = None) -> list[dict[str, Any]]:
        """What a process of machines a core is told, of those or all. Without an address they speak to PostgreSQL.

        After a loss they come again within `hurry` seconds, where that is given.
        """
        numbers = numbers or range(1, self.size + 1)
        login = {"host": "127.0.0.1", "port": self.own.server.port, "database": self.database, "tls": "loopback"}
        cores = min(len(os.sched_getaffinity(0)), len(numbers))
        shared = {"url": url, "seed": self.seed, "login": login, "hurry": hurry}
        return [shared | {"numbers": list(numbers[core::cores])} for core in range(cores)]

    @asynccontextmanager
    async def living(
        self, url: str, numbers: Sequence[int] = (), *, hurry: float | None = None, kind: str = WORKING
    ) -> AsyncIterator[list[Worker]]:
        """Those or all of them, connected, for the time of the block."""
        async with workers(kind, self.tasks(url, numbers, hurry=hurry), self.log) as machines:
            yield machines

    @property
    def settings(self) -> list[str]:
        """What leads a service to them."""
        return [f"database.name={self.database}", "transport=hub", "pool.programs=[echo]", "log.level=warning"]

    @property
    def log(self) -> Path:
        """Where its processes complain."""
        return self.own.directory / f"{self.database}.log"


async def new_fleet(own: Ground, database: str, size: int, *, direct: bool = False) -> Fleet:
    """A fresh database with that many free machines, which may log in to it as well if they are to speak to it."""
    fleet = Fleet(own, database, size, secrets.token_hex(8))
    await own.clone(database)
    await own.fill(database, size)
    words = [password(fleet.seed, number) for number in range(1, size + 1)]
    superuser = await own.connect("postgres", database)
    try:
        await superuser.execute(MAKE_ROLES % size)
        await superuser.execute(KEEP_TOKENS, [hub_sha256(word) for word in words])
        for number, word in enumerate(words if direct else (), 1):
            await superuser.execute(f"ALTER ROLE lablink_vm_{number:016x} PASSWORD '{verifier(word)}'")
    finally:
        await superuser.close()
    return fleet

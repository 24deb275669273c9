"""What tests of the history say again and again: seal it, and hear what is wrong with it."""

import asyncpg

from allocator.upkeep.history import Head, broken_history
from tests.support.database import Database
from tests.support.upkeep import ignore

ROUNDS = 4
"""Sweeps after which what was written before the first of them is settled."""


async def seal(service: asyncpg.Connection) -> int:
    """Seals what there is until its ids are settled; returns how many events were sealed."""
    return sum([await service.fetchval("SELECT sweep_seal()") for _ in range(ROUNDS)])


async def wrong(owner: asyncpg.Connection, head: Head | None = None) -> list[str]:
    """What `lablink verify` says of the history."""
    return await broken_history(owner, head=head, tell=ignore)


async def head(owner: asyncpg.Connection) -> Head:
    """The newest seal, as somebody keeps it."""
    row = await owner.fetchrow("SELECT seal, sha256 FROM history_head()")
    assert row is not None
    return Head(row["seal"], row["sha256"])


async def happen(owner: asyncpg.Connection, number: int = 1, at: str = "clock()") -> list[int]:
    """That many events; returns their ids."""
    rows = await owner.fetch(
        f"INSERT INTO events (actor, kind, at, detail) SELECT 'test', 'test.happened', {at}, "
        "jsonb_build_object('text', 'ünïcödé', 'number', 1.50) FROM generate_series(1, $1) RETURNING id",
        number,
    )
    return [row["id"] for row in rows]


async def tamper(database: Database, *statements: str) -> None:
    """What whoever owns the server can do: change rows while no trigger fires."""
    superuser = await database.connect("postgres")
    async with superuser.transaction():
        await superuser.execute("SET LOCAL session_replication_role = replica")
        for statement in statements:
            await superuser.execute(statement)

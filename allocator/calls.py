"""What the hub asks of the database: each call for the machine whose token it shows, and only for that."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from allocator.config import HUB_CONNECTIONS
from allocator.store import Pool, Store


@dataclass(frozen=True, slots=True)
class Hello:
    """A hello of the machine that has this token. `lease_id` and `epoch` are what it remembers."""

    token_sha256: bytes
    epoch: int
    lease_id: UUID | None


class Calls(Store):
    """Passes on what machines say. Answers are JSON as the machine gets it: {"answer": …} or {"refused": …}."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self._room = asyncio.Semaphore(HUB_CONNECTIONS - 1)  # the last one is for hellos

    async def call(self, token_sha256: bytes, verb: str, said: str) -> str:
        """Do what a machine said: a verb and, as JSON, its arguments. Who comes when all are at work waits in line."""
        async with self._room:
            rows = await self._ask("SELECT hub_call($1, $2, $3) AS answer", token_sha256, verb, said)
        return str(rows[0]["answer"])

    async def hellos(self, hellos: Sequence[Hello]) -> list[str | None]:
        """Answer hellos in one statement; None: that one is to be made by itself, because more follows from it."""
        rows = await self._ask(
            "SELECT place, answer FROM hub_hello($1, $2, $3)",
            [each.token_sha256 for each in hellos],
            [each.epoch for each in hellos],
            [each.lease_id for each in hellos],
        )
        answers = {row["place"]: str(row["answer"]) for row in rows}
        return [answers.get(place) for place in range(1, len(hellos) + 1)]

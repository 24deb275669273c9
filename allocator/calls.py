"""What the hub asks of the database: each call for the machine whose token it shows, and only for that."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from allocator.batches import Batches
from allocator.config import HUB_CONNECTIONS
from allocator.requesting import Lending, untold
from allocator.said import Said
from allocator.store import Pool, Store

AT_ONCE = 500
"""So many hellos take a few milliseconds."""


@dataclass(frozen=True, slots=True)
class Hello:
    """A hello of the machine that has this token. `lease_id` and `epoch` are what it remembers."""

    token_sha256: bytes
    epoch: int
    lease_id: UUID | None


class Calls(Store):
    """Passes on what machines say. Answers are JSON as the machine gets it: {"answer": …} or {"refused": …}."""

    def __init__(self, pool: Pool, lending: Lending = untold) -> None:
        super().__init__(pool, lending)
        self._hellos: Batches[Hello, str | None] = Batches(self._answer_hellos, AT_ONCE)
        self._room = asyncio.Semaphore(HUB_CONNECTIONS - 1)  # the last one is for hellos

    @asynccontextmanager
    async def attended(self) -> AsyncIterator[None]:
        """In the block, what is said together is answered."""
        async with self._hellos.served():
            yield

    async def answer(self, token_sha256: bytes, said: Said) -> str:
        """Do what the machine of this token said. Raises Unreadable, ServiceError."""
        if said.verb == "hello":
            together = await self._hellos.ask(Hello(token_sha256, said.epoch, said.lease_id))
            if together is not None:
                return together
        return await self._answer_alone(token_sha256, said)

    async def _answer_alone(self, token_sha256: bytes, said: Said) -> str:
        """Who comes when all connections are at work waits in line."""
        async with self._room:
            rows = await self._ask("SELECT hub_call($1, $2, $3) AS answer", token_sha256, said.verb, said.text)
        return str(rows[0]["answer"])

    async def _answer_hellos(self, hellos: Sequence[Hello]) -> list[str | None]:
        """Answer hellos in one statement; None: that one is to be made by itself, because more follows from it."""
        rows = await self._ask(
            "SELECT place, answer FROM hub_hello($1, $2, $3)",
            [each.token_sha256 for each in hellos],
            [each.epoch for each in hellos],
            [each.lease_id for each in hellos],
        )
        answers = {row["place"]: str(row["answer"]) for row in rows}
        return [answers.get(place) for place in range(1, len(hellos) + 1)]

"""What the hub asks of the database: each call for the machine whose token it shows, and only for that."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self

from allocator import errors
from allocator.asking import Asking, Pool, connections
from allocator.batches import Batches
from allocator.config import HUB_CONNECTIONS
from allocator.connection import Connect
from allocator.said import Said

AT_ONCE = 500
"""So many hellos take a few milliseconds."""

TOGETHER: Mapping[str, Sequence[str]] = {"hello": ("epoch", "lease_id"), "claim": ("epoch",)}
"""What machines say so often that who waits together is answered by one statement, and what is read of it for that."""

Call = tuple[object, ...]
"""The token, and what was read."""


class Calls(Asking):
    """Passes on what machines say. Answers are JSON as the machine gets it: {"answer": …} or {"refused": …}."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self._together = {verb: self._batches(verb, 1 + len(fields)) for verb, fields in TOGETHER.items()}
        self._room = asyncio.Semaphore(HUB_CONNECTIONS - len(TOGETHER))
        self._alone: set[bytes] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, connect: Connect) -> AsyncIterator[Self]:
        """In the block, what is said is answered."""
        async with connections(connect, HUB_CONNECTIONS) as pool, AsyncExitStack() as stack:
            own = cls(pool)
            for batches in own._together.values():
                await stack.enter_async_context(batches.served())
            yield own

    async def answer(self, token_sha256: bytes, said: Said) -> str:
        """Do what the machine of this token said. Raises Unreadable, ServiceError."""
        if batches := self._together.get(said.verb):
            together = await batches.ask((token_sha256, *(getattr(said, field) for field in TOGETHER[said.verb])))
            if together is not None:
                return together
        return await self._answer_alone(token_sha256, said)

    async def _answer_alone(self, token_sha256: bytes, said: Said) -> str:
        """Who comes when all connections are at work waits in line; each once, for it may keep its own row locked."""
        if token_sha256 in self._alone:  # over another line, which it has left
            raise errors.Busy
        self._alone.add(token_sha256)
        try:
            async with self._room:
                rows = await self._ask("SELECT hub_call($1, $2, $3) AS answer", token_sha256, said.verb, said.text)
        finally:
            self._alone.remove(token_sha256)
        return str(rows[0]["answer"])

    def _batches(self, verb: str, columns: int) -> Batches[Call, str | None]:
        """Answers such calls together; None: that one is to be made alone, because more follows from it."""
        places = ", ".join(f"${column}" for column in range(1, columns + 1))
        question = f"SELECT place, answer FROM hub_{verb}({places})"

        async def answer(calls: Sequence[Call]) -> list[str | None]:
            try:
                rows = await self._ask(question, *map(list, zip(*calls, strict=True)))
            except (errors.Busy, errors.DatabaseFailed, errors.Refusal):  # one of them is in the others' way
                return [None] * len(calls)
            answers = {row["place"]: str(row["answer"]) for row in rows}
            return [answers.get(place) for place in range(1, len(calls) + 1)]

        return Batches(answer, AT_ONCE)

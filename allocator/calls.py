"""What the hub asks of the database: each call for the machine whose token it shows, and only for that."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self

from allocator import errors
from allocator.asking import Asking, Pool, connections
from allocator.batches import Batches, Gathering
from allocator.config import HUB_CONNECTIONS
from allocator.connection import Connect
from allocator.said import Said

AT_ONCE = 500
"""So many hellos take a few milliseconds."""

GATHER_SECONDS = 0.05
"""How long a hello that only shows that its machine is alive may wait for others: alone it costs five times as much."""

Call = tuple[object, ...]
"""What is read of what was said, and before it the token."""

TOGETHER: Mapping[str, Callable[[Said], Call | None]] = {
    "hello": lambda said: (said.epoch, said.lease_id, said.idle_seconds),
    "claim": lambda said: (said.epoch,),
    "report": Said.plain_report,
    "cleaned": lambda said: (said.epoch,),
}
"""What machines say so often that who waits together is answered by one statement, and what is read of it for that."""


class Calls(Asking):
    """Passes on what machines say. Answers are JSON as the machine gets it: {"answer": …} or {"refused": …}."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self._together = {verb: self._batches(verb) for verb in TOGETHER}
        self._room = asyncio.Semaphore(HUB_CONNECTIONS - len(TOGETHER))
        self._alone: set[bytes] = set()
        self._gathering = Gathering(GATHER_SECONDS)

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
        if (read := TOGETHER.get(said.verb)) and (call := read(said)):
            together = await self._together[said.verb].ask((token_sha256, *call))
            if together is not None:
                return together
        return await self._answer_alone(token_sha256, said)

    async def gathered(self) -> None:
        """Wait for others who have time, before asking for an answer."""
        await self._gathering.join()

    async def _answer_alone(self, token_sha256: bytes, said: Said) -> str:
        """Who comes when all connections are at work waits in line; each once, for it may keep its own row locked."""
        if token_sha256 in self._alone:  # over another link, which it has left
            raise errors.Busy
        self._alone.add(token_sha256)
        try:
            async with self._room:
                rows = await self._ask("SELECT hub_call($1, $2, $3) AS answer", token_sha256, said.verb, said.text)
        finally:
            self._alone.remove(token_sha256)
        return str(rows[0]["answer"])

    def _batches(self, verb: str) -> Batches[Call, str | None]:
        """Answers such calls together; None: that one is to be made alone, because more follows from it."""

        async def answer(calls: Sequence[Call], tell: Callable[[Sequence[str | None]], None]) -> None:
            columns = [list(column) for column in zip(*calls, strict=True)]
            places = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
            together = f"SELECT place, answer FROM hub_{verb}({places})"
            try:
                rows = await self._once(lambda connection: connection.fetch(together, *columns))
            except (errors.Busy, errors.DatabaseFailed, errors.Refusal):  # one of them is in the others' way
                tell([None] * len(calls))
                return
            answers = {row["place"]: str(row["answer"]) for row in rows}
            tell([answers.get(place) for place in range(1, len(calls) + 1)])

        return Batches(answer, AT_ONCE)

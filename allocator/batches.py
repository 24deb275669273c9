"""Asks together what waits together: one statement and one commit for all that came while the last one ran."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Batches(Generic[Question, Answer]):
    """Questions that wait are asked together, first come first served, at most `most` at once; a lone one at once.

    `ask` answers each of its questions, in their order. What it raises, each of them is answered with.
    """

    def __init__(self, ask: Callable[[list[Question]], Awaitable[Sequence[Answer]]], most: int) -> None:
        self._ask = ask
        self._most = most
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._some = asyncio.Event()

    async def answer(self, question: Question) -> Answer:
        """The answer to a question, once its turn has come."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        self._some.set()
        return await future

    async def run(self) -> None:
        """Ask what waits, for ever."""
        while True:
            await self._some.wait()
            batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            if not self._waiting:
                self._some.clear()
            await self._settle([(question, future) for question, future in batch if not future.done()])

    async def _settle(self, batch: list[tuple[Question, "asyncio.Future[Answer]"]]) -> None:
        if not batch:
            return
        try:
            answers = await self._ask([question for question, _ in batch])
        except Exception as error:  # noqa: BLE001 (each of those who asked hears of it)
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)

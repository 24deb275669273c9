"""Who waits together is served together: who comes while all calls are under way goes with the next one."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Generic, TypeVar

from allocator.tasks import alongside

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Batches(Generic[Asked, Answer]):
    """Makes one call of `serve` of what was asked meanwhile, `most` at a time, first come first served.

    `lanes` calls may be under way at a time. `serve` says the answers, in the order of who asked, to the function that
    it gets, and nobody waits for what it does after that. What it raises before is raised to all of them.
    """

    def __init__(
        self,
        serve: Callable[[Sequence[Asked], Callable[[Sequence[Answer]], None]], Awaitable[None]],
        most: int,
        lanes: int = 1,
    ) -> None:
        self._serve = serve
        self._most = most
        self._lanes = lanes
        self._waiting: asyncio.Queue[tuple[Asked, asyncio.Future[Answer]]] = asyncio.Queue()

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        """In the block, asking is answered; who waits at its end is cancelled."""
        try:
            async with AsyncExitStack() as running:
                for _ in range(self._lanes):
                    await running.enter_async_context(alongside(self._run()))
                yield
        finally:
            while not self._waiting.empty():
                self._waiting.get_nowait()[1].cancel()

    async def ask(self, asked: Asked) -> Answer:
        """The answer. Whoever is cancelled before their turn was not asked for."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((asked, answer))
        return await answer

    async def _run(self) -> None:
        while True:
            first = await self._waiting.get()
            together = [first, *(self._waiting.get_nowait() for _ in range(min(self._most - 1, self._waiting.qsize())))]
            await self._answer([each for each in together if not each[1].done()])

    async def _answer(self, together: list[tuple[Asked, asyncio.Future[Answer]]]) -> None:
        try:
            if together:
                await self._serve([asked for asked, _ in together], partial(_tell, together))
        except Exception as error:  # noqa: BLE001 - it is theirs, and the next call may go well
            for _, future in together:
                if not future.done():
                    future.set_exception(error)
        finally:
            for _, future in together:
                future.cancel()


class Shared(Batches[None, Answer]):
    """One answer for all who ask: what `read` says, read anew only when that is `seconds` old."""

    def __init__(
        self,
        read: Callable[[], Awaitable[Answer]],
        most: int,
        seconds: float = 0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(self._share, most)
        self._read = read
        self._seconds = seconds
        self._now = now
        self._kept: tuple[float, Answer] | None = None

    async def _share(self, asked: Sequence[None], tell: Callable[[Sequence[Answer]], None]) -> None:
        if self._kept is None or self._now() - self._kept[0] >= self._seconds:
            self._kept = self._now(), await self._read()
        tell([self._kept[1]] * len(asked))


class Gathering:
    """Who has time waits here, and goes on with all others who came in the same so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._over = asyncio.Event()
        self._over.set()

    async def join(self) -> None:
        """Wait for the others."""
        if self._over.is_set():
            self._over = asyncio.Event()
            asyncio.get_running_loop().call_later(self._seconds, self._over.set)
        await self._over.wait()


def _tell(together: Sequence[tuple[Asked, asyncio.Future[Answer]]], answers: Sequence[Answer]) -> None:
    for (_, future), answer in zip(together, answers, strict=True):
        if not future.done():
            future.set_result(answer)

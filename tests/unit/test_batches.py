"""What waits together is asked together, and a lone question at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from allocator.batches import Batches
from allocator.tasks import alongside


class Oracle:
    """Answers with the number itself, one batch when it may, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.may = asyncio.Semaphore(0)

    async def ask(self, numbers: list[int]) -> list[int]:
        self.asked.append(numbers)
        await self.may.acquire()
        if 13 in numbers:
            raise ValueError("thirteen")
        return numbers


@asynccontextmanager
async def batches(oracle: Oracle, most: int = 10) -> AsyncIterator[Batches[int, int]]:
    asking = Batches(oracle.ask, most)
    async with alongside(asking.run()):
        yield asking


async def ask(asking: Batches[int, int], *numbers: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(asking.answer(number)) for number in numbers]
    await asyncio.sleep(0)
    return tasks


async def test_what_comes_while_the_first_is_asked_is_asked_together() -> None:
    oracle = Oracle()
    async with batches(oracle) as asking:
        first = await ask(asking, 1)
        await asyncio.sleep(0)
        others = await ask(asking, 2, 3, 4)
        oracle.may.release()
        oracle.may.release()
        assert await asyncio.gather(*first, *others) == [1, 2, 3, 4]
    assert oracle.asked == [[1], [2, 3, 4]]


async def test_no_batch_is_larger_than_is_allowed_and_the_first_come_first() -> None:
    oracle = Oracle()
    oracle.may = asyncio.Semaphore(10)
    async with batches(oracle, most=2) as asking:
        assert await asyncio.gather(*await ask(asking, 1, 2, 3, 4, 5)) == [1, 2, 3, 4, 5]
    assert oracle.asked == [[1, 2], [3, 4], [5]]


async def test_a_batch_that_fails_fails_for_those_in_it_only() -> None:
    oracle = Oracle()
    oracle.may = asyncio.Semaphore(10)
    async with batches(oracle, most=2) as asking:
        tasks = await ask(asking, 12, 13, 14)
        for task in tasks[:2]:
            with pytest.raises(ValueError, match="thirteen"):
                await task
        assert await tasks[2] == 14


async def test_whoever_left_is_not_asked_for() -> None:
    oracle = Oracle()
    async with batches(oracle) as asking:
        first = await ask(asking, 1)
        await asyncio.sleep(0)
        gone, stays = await ask(asking, 2, 3)
        gone.cancel()
        oracle.may.release()
        oracle.may.release()
        assert await asyncio.gather(*first, stays) == [1, 3]
    assert oracle.asked == [[1], [3]]

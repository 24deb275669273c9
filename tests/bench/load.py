"""People who ask at random moments, whether or not the system keeps up: the same moments for both sides."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from itertools import count
from math import inf
from typing import Any, TypeVar

T = TypeVar("T")

Answered = tuple[int, int, int, int]
"""A request's machine and epoch, and when it was made and answered."""


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Moments in [0, seconds), `rate` a second on average, as people come who do not know of each other."""
    moments, at, dice = [], 0.0, random.Random(seed)
    while (at := at + dice.expovariate(rate)) < seconds:
        moments.append(at)
    return moments


async def at_moments(moments: Sequence[float], come: Callable[[int, int], Coroutine[Any, Any, T]]) -> list[T]:
    """What becomes of all who come, each at their moment, told which they are and how many nanoseconds late."""
    loop, coming = asyncio.get_running_loop(), list[asyncio.Task[T]]()
    begin = loop.time() + 0.05
    for number, moment in enumerate(moments):
        if (wait := begin + moment - loop.time()) > 0:
            await asyncio.sleep(wait)
        coming.append(asyncio.create_task(come(number, int((loop.time() - begin - moment) * 1e9))))
    return await asyncio.gather(*coming)


def now() -> int:
    """This moment, by the clock that PostgreSQL and `date` read too."""
    return time.time_ns()


async def at_random(ask: Callable[[], Coroutine[Any, Any, T]], rate: float, many: int, seed: int = 0) -> list[T]:
    """So many requests, `rate` a second on average, whether or not they are answered as fast."""
    return await at_moments(poisson(rate, 2 * many / rate + 1, seed)[:many], lambda _number, _late: ask())


class SoldOut(Exception):
    """No machine is free."""


async def at_once(ask: Callable[[], Awaitable[T]], waiting: int, many: float = inf, seconds: float = inf) -> list[T]:
    """So many who wait, the next of whom comes when one is served, until so many came, time is over or all is gone."""
    served, begun, until = list[T](), count(), time.perf_counter() + seconds

    async def one_after_the_other() -> None:
        while time.perf_counter() < until and next(begun) < many:
            try:
                served.append(await ask())
            except SoldOut:
                return

    await asyncio.gather(*(one_after_the_other() for _ in range(waiting)))
    return served

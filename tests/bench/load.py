"""People who ask at random moments, whether or not the system keeps up: the same moments for both sides."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

HOLD_SECONDS = 0.3
"""How long a person keeps the machine once it is theirs; long enough for the command to have ended."""

Answered = tuple[int, int, int, int]
"""A request's machine and epoch, and when it was made and answered."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as the person saw it; moments are nanoseconds since 1970. `key` finds it in the side's own records.

    `held_until` is when the machine was given back; `hostname` is None when no machine was given.
    """

    number: int
    sent: int
    answered: int
    status: int
    hostname: str | None
    key: str
    held_until: int
    late: int


class Side(Protocol):
    """One of the two systems that are compared."""

    async def ask(self, number: int, late: int) -> Asked:
        """One person's visit: ask, have the command run, give the machine back."""


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Moments in [0, seconds), `rate` a second on average, as people come who do not know of each other."""
    moments, at, dice = [], 0.0, random.Random(seed)
    while (at := at + dice.expovariate(rate)) < seconds:
        moments.append(at)
    return moments


async def come(side: Side, moments: Sequence[float], first: int) -> list[Asked]:
    """Everybody's visit, each begun at its moment; returns when the last one is over."""
    begin = asyncio.get_running_loop().time() + 0.05
    async with asyncio.TaskGroup() as visits:
        tasks = [visits.create_task(_visit(side, first + n, begin + moment)) for n, moment in enumerate(moments)]
    return [task.result() for task in tasks]


async def _visit(side: Side, number: int, moment: float) -> Asked:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(moment - loop.time())
    return await side.ask(number, int((loop.time() - moment) * 1e9))


def now() -> int:
    """This moment, by the clock that PostgreSQL and `date` read too."""
    return time.time_ns()


async def at_random(ask: Callable[[], Awaitable[Answered]], rate: float, count: int, seed: int = 0) -> list[Answered]:
    """So many requests, `rate` a second on average, whether or not they are answered as fast."""
    moments = poisson(rate, 2 * count / rate + 1, seed)[:count]
    loop = asyncio.get_running_loop()
    begin = loop.time() + 0.05

    async def at(moment: float) -> Answered:
        await asyncio.sleep(begin + moment - loop.time())
        return await ask()

    return list(await asyncio.gather(*(at(moment) for moment in moments)))


async def at_once(ask: Callable[[], Awaitable[Answered]], waiting: int, count: int) -> list[Answered]:
    """So many requests, the next of which comes when one is answered, so that as many always wait."""
    asked: deque[Answered] = deque()
    left = iter(range(count))

    async def one_after_the_other() -> None:
        for _ in left:
            asked.append(await ask())

    await asyncio.gather(*(one_after_the_other() for _ in range(min(waiting, count))))
    return list(asked)

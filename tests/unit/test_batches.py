"""Who asks while a call is under way is served by the next one, together with all others who wait."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from allocator.batches import Batches, Gathering, Shared
from tests.support import LIMIT_SECONDS


class WentWrong(Exception):
    """What was asked cannot be answered."""


@dataclass
class Server:
    """Answers a number with its double, once it may; a negative one is no number."""

    calls: list[list[int]] = field(default_factory=list)
    called: asyncio.Event = field(default_factory=asyncio.Event)
    may: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, numbers: Sequence[int], tell: Callable[[Sequence[int]], None]) -> None:
        self.calls.append(list(numbers))
        self.called.set()
        await self.may.wait()
        if min(numbers) < 0:
            raise WentWrong
        tell([2 * number for number in numbers])


@asynccontextmanager
async def busy(server: Server, most: int = 100) -> AsyncIterator[Batches[int, int]]:
    """Batches of which a first call, for 0, is under way until the server may answer."""
    batches = Batches(server.serve, most)
    async with asyncio.timeout(LIMIT_SECONDS), batches.served():
        first = asyncio.create_task(batches.ask(0))
        await server.called.wait()
        yield batches
        server.may.set()
        await asyncio.wait([first])


async def waiting(batches: Batches[int, int], *numbers: int) -> list["asyncio.Task[int]"]:
    """Those who ask, each of whom waits now."""
    tasks = [asyncio.create_task(batches.ask(number)) for number in numbers]
    await asyncio.sleep(0)
    return tasks


async def test_who_comes_alone_is_served_alone_and_at_once() -> None:
    server = Server()
    server.may.set()
    batches = Batches(server.serve, most=100)

    async with batches.served():
        answers = [await batches.ask(1), await batches.ask(2)]

    assert answers == [2, 4]
    assert server.calls == [[1], [2]]


async def test_nobody_waits_for_what_a_call_does_after_its_answers() -> None:
    may = asyncio.Event()

    async def serve(numbers: Sequence[int], tell: Callable[[Sequence[int]], None]) -> None:
        tell(numbers)
        await may.wait()

    batches = Batches(serve, most=100)
    async with asyncio.timeout(LIMIT_SECONDS), batches.served():
        assert await batches.ask(1) == 1
        may.set()


async def test_those_who_come_meanwhile_go_together_in_the_order_they_came() -> None:
    server = Server()
    async with busy(server) as batches:
        others = await waiting(batches, 3, 1, 2)
        server.may.set()

        assert await asyncio.gather(*others) == [6, 2, 4]

    assert server.calls == [[0], [3, 1, 2]]


async def test_more_than_go_together_go_in_turns() -> None:
    server = Server()
    async with busy(server, most=2) as batches:
        others = await waiting(batches, 1, 2, 3)
        server.may.set()
        await asyncio.gather(*others)

    assert server.calls == [[0], [1, 2], [3]]


async def test_with_two_lanes_two_calls_are_under_way_and_the_others_go_with_whichever_ends_first() -> None:
    server = Server()
    batches = Batches(server.serve, most=2, lanes=2)
    async with asyncio.timeout(LIMIT_SECONDS), batches.served():
        everybody = await waiting(batches, 1, 2, 3, 4, 5)
        await asyncio.sleep(0)
        under_way = list(server.calls)
        server.may.set()

        assert await asyncio.gather(*everybody) == [2, 4, 6, 8, 10]

    assert under_way == [[1, 2], [3, 4]]
    assert server.calls == [[1, 2], [3, 4], [5]]


async def test_whoever_gives_up_waiting_is_not_asked_for_and_nobody_else_notices() -> None:
    server = Server()
    async with busy(server) as batches:
        one, other = await waiting(batches, 1, 2)
        one.cancel()
        await asyncio.wait([one])
        server.may.set()

        assert await other == 4

    assert server.calls == [[0], [2]]


async def test_whoever_gives_up_during_the_call_takes_nobodys_answer_away() -> None:
    server = Server()
    async with busy(server) as batches:
        one, other = await waiting(batches, 1, 2)
        server.called.clear()
        server.may.set()
        server.may = asyncio.Event()
        await server.called.wait()
        one.cancel()
        server.may.set()

        assert await other == 4
        assert one.cancelled()


async def test_a_call_that_fails_is_told_to_all_in_it_and_the_next_goes_on() -> None:
    server = Server()
    async with busy(server) as batches:
        others = await waiting(batches, 1, -1)
        server.may.set()

        assert [type(each) for each in await asyncio.gather(*others, return_exceptions=True)] == [WentWrong, WentWrong]
        assert await batches.ask(2) == 4


async def test_at_the_end_nobody_is_left_waiting() -> None:
    server = Server()
    batches = Batches(server.serve, most=1)
    async with batches.served():
        under_way, behind = await waiting(batches, 1, 2)
        await server.called.wait()

    await asyncio.wait([under_way, behind])
    assert under_way.cancelled()
    assert behind.cancelled()


@pytest.mark.parametrize("most", [1, 7, 1000])
async def test_everybody_gets_their_own_answer(most: int) -> None:
    server = Server()
    async with busy(server, most) as batches:
        others = await waiting(batches, *range(1, 1001))
        server.may.set()

        assert await asyncio.gather(*others) == list(range(2, 2002, 2))


async def test_who_has_time_goes_on_with_all_who_came_meanwhile() -> None:
    gathering, gone_on = Gathering(0.01), list[str]()

    async def come(name: str) -> None:
        await gathering.join()
        gone_on.append(name)

    people = [asyncio.create_task(come(name)) for name in ("first", "second", "third")]
    await asyncio.sleep(0)
    people[1].cancel()
    async with asyncio.timeout(LIMIT_SECONDS):
        await people[0]
    assert gone_on == ["first", "third"]
    async with asyncio.timeout(LIMIT_SECONDS):
        await come("later")
    assert gone_on == ["first", "third", "later"]


@dataclass
class Well:
    """What is dear to know: how often it was read."""

    now: float = 0.0
    reads: int = 0
    dry: bool = False

    async def read(self) -> int:
        await asyncio.sleep(0)
        self.reads += 1
        if self.dry:
            raise WentWrong
        return self.reads


async def test_what_is_shared_is_read_once_for_all_who_ask_and_anew_when_it_is_too_old() -> None:
    well = Well()
    shared = Shared(well.read, most=100, seconds=10, now=lambda: well.now)
    async with asyncio.timeout(LIMIT_SECONDS), shared.served():
        assert set(await asyncio.gather(*(shared.ask(None) for _ in range(300)))) == {1}
        well.now = 9.9
        assert await shared.ask(None) == 1
        well.now = 10
        assert set(await asyncio.gather(*(shared.ask(None) for _ in range(300)))) == {2}


async def test_what_could_not_be_read_is_read_by_whoever_asks_next() -> None:
    well = Well(dry=True)
    shared = Shared(well.read, most=100, seconds=10, now=lambda: well.now)
    async with asyncio.timeout(LIMIT_SECONDS), shared.served():
        with pytest.raises(WentWrong):
            await shared.ask(None)
        well.dry = False
        assert await shared.ask(None) == 2

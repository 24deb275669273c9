"""News that many pages show reach them a few at a time, and only those to whom they are news."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from allocator.pool_views import Counts
from allocator.subscriptions import A_FEW, News, Rounds, Subscription
from allocator.views import LeaseView, Place
from tests.support import LIMIT_SECONDS

NOW = datetime(2026, 11, 22, 12, 0, 10, tzinfo=UTC)


class Noted(Subscription):
    """A subscription that remembers how often it was told something."""

    def __init__(self, news: News = None) -> None:
        super().__init__()
        self._news = news
        self.told: list[News] = []
        self.heard = asyncio.Event()

    def tell(self, news: News) -> None:
        self.told.append(news)
        self.heard.set()
        super().tell(news)


def _waiting() -> LeaseView:
    nothing = dict.fromkeys(LeaseView.__slots__)
    known = {
        "id": uuid4(),
        "status": "queued",
        "position": 7,
        "eta_seconds": 100,
        "version": 1,
        "paused": False,
        "now": NOW,
    }
    return LeaseView.of(nothing | known)


async def test_others_get_a_word_in_between_while_many_pages_are_told_the_same() -> None:
    rounds, pages = Rounds(), [Noted() for _ in range(3 * A_FEW)]
    for page in pages:
        rounds.tell(page, Counts(1, 2, 3, 4))

    seen: set[int] = set()
    async with asyncio.timeout(LIMIT_SECONDS):
        while len(pages) not in seen:
            await asyncio.sleep(0)
            seen.add(sum(len(page.told) for page in pages))

    assert {A_FEW, 2 * A_FEW, 3 * A_FEW} <= seen <= {0, A_FEW, 2 * A_FEW, 3 * A_FEW}


async def test_a_place_is_told_to_those_for_whom_it_is_another_one() -> None:
    lease = _waiting()
    rounds, same, other, over = Rounds(), Noted(lease), Noted(lease), Noted(replace(lease, status="ended"))
    rounds.tell(same, Place(7, 95, None, None, None, False, NOW + timedelta(seconds=5)))
    rounds.tell(over, Place(6, 95, None, None, None, False, NOW))
    rounds.tell(other, Place(6, 95, None, None, None, False, NOW))

    async with asyncio.timeout(LIMIT_SECONDS):
        await other.heard.wait()

    assert [news.position for news in other.told if isinstance(news, LeaseView)] == [6]
    assert same.told == over.told == []


async def test_who_has_heard_later_news_is_not_told_the_earlier_ones() -> None:
    rounds, forgotten, told = Rounds(), Noted(), Noted()
    rounds.tell(forgotten, Counts(1, 0, 0, 0))
    rounds.tell(told, Counts(1, 0, 0, 0))
    rounds.tell(told, Counts(2, 0, 0, 0))
    rounds.forget(forgotten)

    async with asyncio.timeout(LIMIT_SECONDS):
        await told.heard.wait()

    assert (forgotten.told, told.told) == ([], [Counts(2, 0, 0, 0)])


async def test_a_lease_that_was_not_told_yet_is_told_with_the_place_that_came_after_it() -> None:
    lease = _waiting()
    rounds, lost_sight, moved = Rounds(), Noted(None), Noted(replace(lease, status="assigned", version=0))
    for page in (lost_sight, moved):
        rounds.tell(page, lease)
        rounds.tell(page, Place(6, 95, None, None, None, False, NOW))

    async with asyncio.timeout(LIMIT_SECONDS):
        await lost_sight.heard.wait()
        await moved.heard.wait()

    assert [news.position for page in (lost_sight, moved) for news in page.told if isinstance(news, LeaseView)] == [
        6,
        6,
    ]


async def test_a_place_that_comes_after_a_lease_found_its_machine_takes_nothing_from_that() -> None:
    lease = _waiting()
    rounds, page = Rounds(), Noted(lease)
    rounds.tell(page, replace(lease, status="assigned", version=2))
    rounds.tell(page, Place(6, 95, None, None, None, False, NOW))

    async with asyncio.timeout(LIMIT_SECONDS):
        await page.heard.wait()

    assert [news.status for news in page.told if isinstance(news, LeaseView)] == ["assigned"]

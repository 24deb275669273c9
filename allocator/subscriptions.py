"""Who follows what, and how news reach thousands of pages: one's own at once, everybody's a few pages at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import islice
from typing import Final, Literal
from uuid import UUID

from allocator.pool_views import Counts, PoolStatus
from allocator.views import LeaseView, Place

BEAT_SECONDS = 5.0
"""How long a page hears nothing at most; then it is told the same again, and so knows that it is still connected."""

PAGE_SECONDS = 0.001
"""How much time each page has to itself where many are told the same: others ask for machines meanwhile."""

A_FEW = 3
"""How many pages are told together then."""

POOL: Final = "pool"
POOLS: Final = "pools"

Topic = UUID | Literal["pool", "pools"]
"""What one may subscribe to: a lease, the counts of the usual pool, or how all pools are."""

Pools = tuple[PoolStatus, ...]

News = LeaseView | Counts | Pools | None
"""What subscribers are told; None: the database is away, so what they saw last may be old."""


class Subscription:
    """The latest news of one topic for one page, told again now and then. Who reads slowly misses steps only."""

    def __init__(self, beat_seconds: float = BEAT_SECONDS) -> None:
        self._beat_seconds = beat_seconds
        self._news: News = None
        self._changed = asyncio.Event()
        self._over = False

    def tell(self, news: News) -> None:
        """There is news."""
        self._news = news
        self._changed.set()

    def tell_new(self, news: News | Place) -> None:
        """As `tell`, unless a person would see no difference. A place is news to who waits."""
        latest = _after(self._news, news)
        if _looks(latest) != _looks(self._news):
            self.tell(latest)

    def end(self) -> None:
        """There will be no more: the service stops."""
        self._over = True
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[News]:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._beat_seconds):
                    await self._changed.wait()
            self._changed.clear()
            if self._over:
                return
            yield self._news


class Rounds:
    """Tells what many pages show, by and by; of what is told of the same page meanwhile, the latest."""

    def __init__(self) -> None:
        self._untold: dict[Subscription, News | Place] = {}
        self._next: asyncio.TimerHandle | None = None

    def tell(self, subscription: Subscription, news: News | Place) -> None:
        """There is news that many hear."""
        untold = self._untold.get(subscription)
        self._untold[subscription] = _after(untold, news) if isinstance(untold, LeaseView) else news
        if self._next is None:
            self._next = asyncio.get_running_loop().call_later(0, self._tell_some)

    def forget(self, subscription: Subscription) -> None:
        """It has later news, or is over."""
        self._untold.pop(subscription, None)

    def _tell_some(self) -> None:
        for subscription in list(islice(self._untold, A_FEW)):
            subscription.tell_new(self._untold.pop(subscription))
        loop = asyncio.get_running_loop()
        self._next = loop.call_later(A_FEW * PAGE_SECONDS, self._tell_some) if self._untold else None


def _after(before: News, news: News | Place) -> News:
    """What is known when that came, too: a place says something only of a lease that waits."""
    if not isinstance(news, Place):
        return news
    return before.at(news) if isinstance(before, LeaseView) and before.status == "queued" else before


def _looks(news: News) -> object:
    return news.looks if isinstance(news, LeaseView) else news

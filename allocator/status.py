"""The page of all pools, for everybody: who waits and how long, what boots. It follows them by itself."""

from collections.abc import AsyncGenerator

from fastapi import APIRouter, Response

from allocator.pool_wording import pool_words, status_words
from allocator.service import Here, Service
from allocator.streams import EventStream, changes
from allocator.subscriptions import POOLS, Pools

pages = APIRouter(include_in_schema=False)


@pages.get("/status")
async def status_page(service: Here) -> Response:
    """Each pool: its machines, who waits and how long, boots under way."""
    return service.templates.page("status.html", pools=_html(service, tuple(await service.store.pool_status())))


@pages.get("/status/stream")
async def follow_status(service: Here) -> Response:
    """The same, each time that it changes."""
    return EventStream(_events(service))


async def _events(service: Service) -> AsyncGenerator[bytes]:
    shown: dict[str, str] = {}
    with service.feed.subscribe(POOLS) as subscription:
        async for news in subscription:
            told = {"contact": service.templates.remembered("_contact.html", lost=not isinstance(news, tuple))}
            if isinstance(news, tuple):
                told["pools"] = _html(service, news)
            yield changes(shown, told)


def _html(service: Service, pools: Pools) -> str:
    """Each pool with its headline and what else is said of it; made once for all who look."""
    said = tuple((each, pool_words(each.counts), status_words(each)) for each in pools)
    return service.templates.remembered("_status.html", pools=said)

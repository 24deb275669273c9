"""The page of all pools, for everybody: who waits and how long, what boots. It follows them by itself."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress

from fastapi import APIRouter, Response

from allocator.errors import ServiceError
from allocator.pool_wording import pool_words, status_words
from allocator.service import Here, Service
from allocator.streams import EventStream, changes
from allocator.subscriptions import POOLS, Pools
from allocator.views import Condition

pages = APIRouter(include_in_schema=False)


Reasons = Mapping[str, tuple[Condition, ...]]
"""Of each pool why somebody waits there, or nobody has to."""


@pages.get("/status")
async def status_page(service: Here) -> Response:
    """Each pool: its machines, who waits and how long, boots under way, and why it is so."""
    pools = tuple(await service.store.pool_status())
    return service.templates.page("status.html", pools=_html(service, pools, await _reasons(service, {})))


@pages.get("/status/stream")
async def follow_status(service: Here) -> Response:
    """The same, each time that it changes."""
    return EventStream(_events(service))


async def _events(service: Service) -> AsyncGenerator[bytes]:
    shown: dict[str, str] = {}
    reasons: Reasons = {}
    with service.feed.subscribe(POOLS) as subscription:
        async for news in subscription:
            told = {"contact": service.templates.remembered("_contact.html", lost=not isinstance(news, tuple))}
            if isinstance(news, tuple):
                reasons = await _reasons(service, reasons)
                told["pools"] = _html(service, news, reasons)
            yield changes(shown, told)


async def _reasons(service: Service, before: Reasons) -> Reasons:
    """The reasons of now; where the database does not say them, those of before: how pools are is shown without."""
    with suppress(ServiceError):
        return await service.store.why_pools()
    return before


def _html(service: Service, pools: Pools, reasons: Reasons) -> str:
    """Each pool with its headline, what else is said of it and why; made once for all who look."""
    said = tuple((each, pool_words(each.counts), status_words(each), reasons.get(each.name, ())) for each in pools)
    return service.templates.remembered("_status.html", pools=said)

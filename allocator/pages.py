"""The page of a lease, which follows it by itself, and what its holder does there."""

from collections.abc import AsyncGenerator
from html import escape
from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends, Form, Request, Response
from starlette.responses import RedirectResponse

from allocator.cookies import bearer_tokens
from allocator.errors import BudgetSpent, InvalidRequest, NoSuchLease, NothingAsked, NotLonger, NoToken
from allocator.leasing import extend, give_back, own_pin, renew_line
from allocator.service import Here, Service
from allocator.streams import EventStream, changes, event
from allocator.views import HeldLease, LeaseView
from allocator.wording import nothing_new, words

SEE_OTHER = 303
SAID_NOTHING_NEW = "nothing-new"

log = structlog.get_logger()
pages = APIRouter(include_in_schema=False)


async def held_lease(lease_id: UUID, request: Request, service: Here) -> HeldLease:
    """The caller's own lease of that id."""
    return await service.lease_of(request, lease_id)


Held = Annotated[HeldLease, Depends(held_lease)]


@pages.get("/leases/{lease_id:uuid}")
async def lease_page(lease_id: UUID, request: Request, service: Here, said: str = "") -> Response:
    """A lease as its holder sees it; somebody else is told what to do, not whether it is there."""
    try:
        held = await service.lease_of(request, lease_id)
    except (NoToken, NoSuchLease):
        return service.templates.page("not_yours.html", 404)
    notice = None
    if held.lease.live and said == SAID_NOTHING_NEW:
        notice = nothing_new((await service.store.pool_rules(held.lease.pool)).per_person)
    return _page(request, service, held, notice=notice)


@pages.get("/leases/{lease_id:uuid}/stream")
async def follow_lease(held: Held, service: Here) -> Response:
    """The lease's page in pieces, each time that it changes, until it is over or the service stops."""
    return EventStream(_lease_events(service, held))


@pages.post("/leases/{lease_id:uuid}/end")
async def end_lease(held: Held, service: Here) -> Response:
    """Give up the machine or the place in the queue."""
    await give_back(service.store, held.lease.id)
    return RedirectResponse(f"/leases/{held.lease.id}", SEE_OTHER)


@pages.get("/leases/{lease_id:uuid}/why")
async def why(held: Held, service: Here) -> Response:
    """A piece of the page: each condition and whether it holds, and what happens next."""
    return service.templates.page("_why.html", conditions=await service.store.why_lease(held.lease.id))


@pages.post("/leases/{lease_id:uuid}/extension")
async def make_longer(held: Held, request: Request, service: Here) -> Response:
    """Make it a step longer. Why not, the page says."""
    try:
        await extend(service.store, held.lease.id)
    except (NotLonger, BudgetSpent) as refusal:
        return _page(request, service, held, 409, notice=str(refusal))
    return RedirectResponse(f"/leases/{held.lease.id}", SEE_OTHER)


@pages.post("/leases/{lease_id:uuid}/activity")
async def still_here(held: Held, service: Here) -> Response:
    """Its holder is there, though nobody uses the machine."""
    await service.store.still_here(held.lease.id)
    return RedirectResponse(f"/leases/{held.lease.id}", SEE_OTHER)


@pages.post("/leases/{lease_id:uuid}/line")
async def go_on(held: Held, request: Request, service: Here, crd_command: Annotated[str, Form()] = "") -> Response:
    """Go on with a fresh line. What is wrong with it, the page says."""
    try:
        await renew_line(service.store, held, crd_command)
    except InvalidRequest as invalid:
        return _page(request, service, held, 422, wrong=str(invalid))
    except NothingAsked:
        log.info("line.unasked", lease=str(held.lease.id))
    return RedirectResponse(f"/leases/{held.lease.id}", SEE_OTHER)


@pages.get("/leases/{lease_id:uuid}/end")
@pages.get("/leases/{lease_id:uuid}/extension")
@pages.get("/leases/{lease_id:uuid}/activity")
@pages.get("/leases/{lease_id:uuid}/line")
async def back_to_lease(lease_id: UUID) -> Response:
    """To the lease's page: a browser that was refused something shows these addresses, and may load them again."""
    return RedirectResponse(f"/leases/{lease_id}", SEE_OTHER)


@pages.post("/leases/{lease_id:uuid}/return", status_code=204)
async def return_to_lease(lease_id: UUID, request: Request, service: Here) -> Response:
    """Have this browser keep a lease whose token it was given (in a link's fragment, which no server sees)."""
    response = Response(status_code=204)
    held = await service.store.held_lease(lease_id, bearer_tokens(request))
    service.cookie.keep(request, response, (lease_id, held.token))
    return response


def _page(request: Request, service: Service, held: HeldLease, status: int = 200, **said: str | None) -> Response:
    """The page of a lease, with what else it says."""
    link = f"{service.site.base_of(request)}/leases/{held.lease.id}#{held.token}"
    return service.templates.page("lease.html", status, **{"link": link, "notice": None, **_lease_values(held), **said})


async def _lease_events(service: Service, held: HeldLease) -> AsyncGenerator[bytes]:
    shown: dict[str, str] = {}
    seen: object = ()
    with service.feed.subscribe(held.lease.id) as subscription:
        async for news in subscription:
            lease = news if isinstance(news, LeaseView) else None
            before, seen = seen, lease and lease.looks
            told = _told(service, lease, held.token) if seen != before else {}
            yield changes(shown, told)
            if lease and not lease.live:
                yield event("over", "over")
                return


def _told(service: Service, lease: LeaseView | None, token: str) -> dict[str, str]:
    """The pieces of a lease's page by the name of their event; only a note when the database is away."""
    contact = service.templates.remembered("_contact.html", lost=lease is None)
    if lease is None:
        return {"contact": contact}
    values = _lease_values(HeldLease(lease, token))
    html = service.templates.html("_lease.html", **values)
    return {"contact": contact, "lease": html, "announcement": escape(values["words"].announcement)}


def _lease_values(held: HeldLease) -> dict[str, Any]:
    return {"lease": held.lease, "words": words(held.lease), "pin": own_pin(held), "wrong": None}

"""The pages that people see: the form, a lease that follows itself, and what changes them."""

import re
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace
from html import escape
from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends, Form, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import RedirectResponse

from allocator.api import LeaseWithToken, answer
from allocator.checking import KEY_LENGTH
from allocator.cookies import bearer_tokens
from allocator.errors import KeyReused, NoSuchLease, NoToken, Refusal
from allocator.feed import POOL
from allocator.leasing import LeaseRequest, Opened, give_back, open_lease, own_pin
from allocator.problems import responses, wants_json
from allocator.service import Here, Service
from allocator.streams import EventStream, beat, event
from allocator.tokens import new_key
from allocator.views import Counts, HeldLease, LeaseView
from allocator.wording import NOTHING_NEW, pool_words, words
from client.command import redact

SEE_OTHER = 303
SAID_NOTHING_NEW = "nothing-new"

log = structlog.get_logger()
pages = APIRouter(include_in_schema=False)
forms = APIRouter()


class LeaseForm(BaseModel):
    """The form's fields."""

    model_config = ConfigDict(hide_input_in_errors=True)

    email: str = Field(default="", description="Your e-mail address.")
    crd_command: str = Field(default="", description="The line from Google's page, or a program of the pool.")
    key: str = Field(default="", max_length=KEY_LENGTH, description="As Idempotency-Key.")


@pages.get("/")
async def form_page(request: Request, service: Here) -> Response:
    """The form; whoever holds a lease is led to it."""
    mine = await _newest(request, service)
    return await _form(service, email=mine.lease.email if mine else "", mine=mine)


@forms.post(
    "/api/request_vm",
    status_code=SEE_OTHER,
    response_class=RedirectResponse,
    tags=["leases"],
    responses={
        201: {"model": LeaseWithToken, "description": "The lease, where JSON was asked for"},
        303: {"description": "To the page of the lease", "headers": {"Location": {"schema": {"type": "string"}}}},
        **responses(400, 408, 409, 413, 422, 503, pages=True),
    },
)
async def request_vm(request: Request, service: Here, form: Annotated[LeaseForm, Form()]) -> Response:
    """Ask for a machine with a form. Answers with a page, or with JSON where Accept says so."""
    tokens = service.tokens(request)
    pool, domains = service.settings.pool.name, service.settings.access.domains
    asked = LeaseRequest(form.email, form.crd_command, pool, domains, form.key or None, tokens)
    try:
        opened = await _opened(service, asked)
    except Refusal as refusal:
        if wants_json(request):
            raise
        return await _refused_form(service, form.email, form.crd_command, refusal)
    response = await answer(service, opened) if wants_json(request) else _to_lease(opened)
    service.cookie.keep(request, response, (opened.lease_id, opened.token))
    return response


@pages.get("/stream")
async def follow_pool(service: Here) -> Response:
    """How many machines are free, for as long as the form is open."""
    return EventStream(_pool_events(service))


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
    link = f"{service.site.base_of(request)}/leases/{held.lease.id}#{held.token}"
    notice = NOTHING_NEW if held.lease.live and said == SAID_NOTHING_NEW else None
    return service.templates.page("lease.html", link=link, notice=notice, **_lease_values(held))


@pages.get("/leases/{lease_id:uuid}/stream")
async def follow_lease(held: Held, service: Here) -> Response:
    """The lease's page in pieces, each time that it changes, until it is over or the service stops."""
    return EventStream(_lease_events(service, held))


@pages.post("/leases/{lease_id:uuid}/end")
async def end_lease(held: Held, service: Here) -> Response:
    """Give up the machine or the place in the queue."""
    await give_back(service.store, held.lease.id)
    return RedirectResponse(f"/leases/{held.lease.id}", SEE_OTHER)


@pages.post("/leases/{lease_id:uuid}/return", status_code=204)
async def return_to_lease(lease_id: UUID, request: Request, service: Here) -> Response:
    """Have this browser keep a lease whose token it was given (in a link's fragment, which no server sees)."""
    response = Response(status_code=204)
    held = await service.store.held_lease(lease_id, bearer_tokens(request))
    service.cookie.keep(request, response, (lease_id, held.token))
    return response


async def _opened(service: Service, asked: LeaseRequest) -> Opened:
    """The lease that was asked for. A form that was gone back to and changed is a new request with an old key."""
    try:
        return await open_lease(service.store, service.metrics, asked)
    except KeyReused:
        return await open_lease(service.store, service.metrics, replace(asked, key=None))


def _to_lease(opened: Opened) -> Response:
    """To the lease's page, which says so when nothing new was started."""
    said = f"?said={SAID_NOTHING_NEW}" if opened.outcome == "live" else ""
    return RedirectResponse(f"/leases/{opened.lease_id}{said}", SEE_OTHER)


async def _newest(request: Request, service: Service) -> HeldLease | None:
    for lease_id, token in service.cookie.kept(request)[:1]:
        with suppress(NoSuchLease):
            return await service.store.held_lease(lease_id, [token])
    return None


async def _form(service: Service, status: int = 200, **values: Any) -> Response:
    rules = await service.store.pool_rules(service.settings.pool.name)
    pool = _pool(service, await service.store.counts(rules.name))
    filled = {"email": "", "crd_command": "", "mine": None, "problem": None, "lost": False, "wrong": {}, **values}
    filled["domains"] = service.settings.access.domains
    return service.templates.page("form.html", status, rules=rules, pool=pool, key=new_key(), **filled)


async def _refused_form(service: Service, email: str, crd_command: str, refusal: Refusal) -> Response:
    """The form again, saying what is wrong, with what was typed; only a line that may hold a code is not sent back."""
    problem = service.problems.describe(refusal)
    kept = "" if _may_hold_a_secret(crd_command) else crd_command
    typed = {"email": email, "crd_command": kept, "lost": bool(crd_command) and not kept}
    wrong = {error.field: error.detail for error in problem.errors or ()}
    return await _form(service, problem.status, problem=problem, wrong=wrong, **typed)


def _may_hold_a_secret(line: str) -> bool:
    return redact(line, None) != line or re.search(r"code|pin|4/|start.?host", line, re.IGNORECASE) is not None


async def _pool_events(service: Service) -> AsyncGenerator[bytes]:
    shown = ""
    with service.feed.subscribe(POOL) as subscription:
        async for news in subscription:
            html = _pool(service, news if isinstance(news, Counts) else None)
            yield (event("pool", html) if html != shown else b"") + beat()
            shown = html


async def _lease_events(service: Service, held: HeldLease) -> AsyncGenerator[bytes]:
    shown: dict[str, str] = {}
    seen: object = ()
    with service.feed.subscribe(held.lease.id) as subscription:
        async for news in subscription:
            lease = news if isinstance(news, LeaseView) else None
            before, seen = seen, lease and lease.looks
            told = _told(service, lease, held.token) if seen != before else {}
            yield b"".join(event(name, html) for name, html in told.items() if shown.get(name) != html) + beat()
            shown |= told
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
    return {"lease": held.lease, "words": words(held.lease), "pin": own_pin(held)}


def _pool(service: Service, counts: Counts | None) -> str:
    return service.templates.remembered("_pool.html", counts=counts, sentence=pool_words(counts))

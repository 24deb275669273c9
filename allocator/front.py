"""The first page: what can be had, and the form with which somebody asks for it."""

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse

from allocator.api import LeaseWithToken, answer
from allocator.checking import KEY_LENGTH
from allocator.errors import KeyReused, NoSuchLease, Refusal, TooManyTokens
from allocator.leasing import LeaseRequest, Opened
from allocator.pages import SAID_NOTHING_NEW, SEE_OTHER
from allocator.pool_views import Counts, PoolRules
from allocator.pool_wording import choice_words, limits_words, pool_words, terms_words
from allocator.problems import responses, wants_json
from allocator.service import Here, Service
from allocator.streams import EventStream, changes
from allocator.subscriptions import POOL, POOLS
from allocator.tokens import new_key
from allocator.views import HeldLease
from client.command import Accepts, redact

pages = APIRouter(include_in_schema=False)
forms = APIRouter()


class LeaseForm(BaseModel):
    """The form's fields."""

    model_config = ConfigDict(hide_input_in_errors=True)

    email: str = Field(default="", description="Your e-mail address.")
    crd_command: str = Field(default="", description="The line from Google's page, or a program of the pool.")
    reserve: str = Field(default="", description="Anything: reserve a desktop first, its line comes later.")
    pool: str = Field(default="", pattern=r"^([a-z0-9][a-z0-9-]{0,62})?$", description="As over the API, or empty.")
    join_code: str = Field(default="", max_length=200, description="A workshop's code, for who is not on its list.")
    key: str = Field(default="", max_length=KEY_LENGTH, description="As Idempotency-Key.")


@dataclass(frozen=True, slots=True)
class Choice:
    """A pool that somebody may choose: what it is for, and how it is now."""

    name: str
    terms: str
    now: str


@pages.get("/")
async def form_page(request: Request, service: Here) -> Response:
    """The form; whoever holds a lease is led to it."""
    mine = await _newest(request, service)
    return await _form(service, LeaseForm(email=mine.lease.email if mine else ""), mine=mine)


@forms.post(
    "/api/request_vm",
    status_code=SEE_OTHER,
    response_class=RedirectResponse,
    tags=["leases"],
    responses={
        201: {"model": LeaseWithToken, "description": "The lease, where JSON was asked for"},
        303: {"description": "To the page of the lease", "headers": {"Location": {"schema": {"type": "string"}}}},
        **responses(400, 403, 408, 409, 413, 422, 429, 503, pages=True),
    },
)
async def request_vm(request: Request, service: Here, form: Annotated[LeaseForm, Form()]) -> Response:
    """Ask for a machine with a form. Answers with a page, or with JSON where Accept says so."""
    asked = LeaseRequest(
        form.email,
        None if form.reserve else form.crd_command,
        form.pool or service.settings.pool.name,
        service.settings.access.domains,
        form.key or None,
        service.tokens(request),
        form.join_code.strip() or None,
    )
    try:
        opened = await _opened(request, service, asked)
    except (Refusal, TooManyTokens) as refusal:
        if wants_json(request):
            raise
        return await _refused_form(service, form, refusal)
    response = await answer(service, opened) if wants_json(request) else _to_lease(opened)
    service.cookie.keep(request, response, (opened.lease_id, opened.token))
    return response


@forms.get("/api/request_vm", include_in_schema=False)
async def form_again(request: Request) -> Response:
    """To the form: whose request was refused may load the address anew that their browser shows. It takes POST only."""
    if wants_json(request):
        raise HTTPException(405, headers={"Allow": "POST"})
    return RedirectResponse("/", SEE_OTHER)


@pages.get("/stream")
async def follow_pool(service: Here) -> Response:
    """How many machines are free, for as long as the form is open."""
    return EventStream(_pool_events(service))


@pages.get("/choice/stream")
async def follow_choice(service: Here) -> Response:
    """The same of each pool that may be chosen."""
    return EventStream(_choice_events(service))


async def _opened(request: Request, service: Service, asked: LeaseRequest) -> Opened:
    """The lease that was asked for. A form that was gone back to and changed is a new request with an old key."""
    try:
        return await service.open_lease(request, asked)
    except KeyReused:
        return await service.open_lease(request, replace(asked, key=None))


def _to_lease(opened: Opened) -> Response:
    """To the lease's page, which says so when nothing new was started."""
    said = f"?said={SAID_NOTHING_NEW}" if opened.outcome == "live" else ""
    return RedirectResponse(f"/leases/{opened.lease_id}{said}", SEE_OTHER)


async def _newest(request: Request, service: Service) -> HeldLease | None:
    for lease_id, token in service.cookie.kept(request)[:1]:
        with suppress(NoSuchLease):
            return await service.store.held_lease(lease_id, [token])
    return None


async def _form(service: Service, form: LeaseForm, status: int = 200, **values: Any) -> Response:
    """The form, filled in. Where there is one pool, nobody is asked which."""
    usual = service.settings.pool.name
    offered = await service.store.offered_pools(usual)
    shown = {
        "form": form,
        "key": new_key(),
        "domains": service.settings.access.domains,
        "accepts": _all_that(offered),
        "limits": limits_words(offered),
        "longest": max(pool.lease_seconds for pool in offered),
        "wants_code": any(pool.members_only for pool in offered),
        "chosen": next((pool.name for pool in offered if pool.name == form.pool), usual),
        "choices": await _choices(service, offered) if len(offered) > 1 else [],
        "pool": _pool(service, await service.store.counts(usual)) if len(offered) == 1 else None,
    }
    rest: dict[str, Any] = {"mine": None, "problem": None, "lost": False, "wrong": {}}
    return service.templates.page("form.html", status, **shown, **rest | values)


async def _choices(service: Service, offered: Sequence[PoolRules]) -> list[Choice]:
    now = {pool.name: choice_words(pool) for pool in await service.store.pool_status()}
    return [Choice(rules.name, terms_words(rules), now.get(rules.name, "")) for rules in offered]


def _all_that(offered: Sequence[PoolRules]) -> Accepts:
    """What one or another of the pools accepts."""
    programs = dict.fromkeys(program for pool in offered for program in pool.accepts.programs)
    return Accepts(any(pool.accepts.desktop for pool in offered), tuple(programs))


async def _refused_form(service: Service, form: LeaseForm, refusal: Refusal | TooManyTokens) -> Response:
    """The form again, saying what is wrong, with what was typed; only a line that may hold a code is not sent back."""
    problem = service.problems.describe(refusal)
    kept = "" if _may_hold_a_secret(form.crd_command) else form.crd_command
    lost = bool(form.crd_command) and not kept
    wrong = {error.field: error.detail for error in problem.errors or ()}
    typed = form.model_copy(update={"crd_command": kept})
    return await _form(service, typed, problem.status, problem=problem, wrong=wrong, lost=lost)


def _may_hold_a_secret(line: str) -> bool:
    return redact(line, None) != line or re.search(r"code|pin|4/|start.?host", line, re.IGNORECASE) is not None


async def _pool_events(service: Service) -> AsyncGenerator[bytes]:
    shown: dict[str, str] = {}
    with service.feed.subscribe(POOL) as subscription:
        async for news in subscription:
            yield changes(shown, {"pool": _pool(service, news if isinstance(news, Counts) else None)})


async def _choice_events(service: Service) -> AsyncGenerator[bytes]:
    shown: dict[str, str] = {}
    with service.feed.subscribe(POOLS) as subscription:
        async for news in subscription:
            told = {"contact": service.templates.remembered("_contact.html", lost=not isinstance(news, tuple))}
            if isinstance(news, tuple):
                told |= {f"pool-{pool.name}": choice_words(pool) for pool in news}
            yield changes(shown, told)


def _pool(service: Service, counts: Counts | None) -> str:
    return service.templates.remembered("_pool.html", counts=counts, sentence=pool_words(counts))

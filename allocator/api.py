"""The HTTP API: JSON in, JSON out, every error a problem document."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.security import APIKeyCookie, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from allocator.checking import EMAIL_LENGTH, KEY_LENGTH
from allocator.conf_values import PoolName
from allocator.errors import WrongType
from allocator.failure_words import failure_words, trouble_words
from allocator.leasing import LeaseRequest, Opened, extend, give_back, own_pin, renew_line
from allocator.problems import responses
from allocator.service import Here, Service
from allocator.views import EndedBy, HeldLease, LeaseStatus
from allocator.wording import nothing_new
from client.command import JOB_BYTES
from client.protocol import Kind

JSON = "application/json"


class In(BaseModel):
    """What is sent; nothing else may be in it."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Out(BaseModel):
    """What is answered."""

    model_config = ConfigDict(from_attributes=True)


class LeaseWanted(In):
    """A request for a machine."""

    email: str = Field(min_length=3, max_length=EMAIL_LENGTH, examples=["ada@example.org"])
    crd_command: str | None = Field(
        default=None,
        min_length=1,
        max_length=JOB_BYTES,
        examples=["python3 -c 'print(42)'"],
        description="The line from https://remotedesktop.google.com/headless, or a program that the pool runs. "
        "Left out: a desktop is reserved, and its line comes with PUT …/line.",
    )
    pool: PoolName | None = Field(default=None, description="Left out: the usual one.")
    join_code: str | None = Field(
        default=None, min_length=1, max_length=200, description="Makes you a member of the group that it is for."
    )


class Lease(Out):
    """A lease as its holder sees it."""

    id: UUID
    email: str
    status: LeaseStatus
    pool: str
    position: int | None = Field(description="Place in the queue, from 1; only while queued.")
    eta_seconds: int | None = Field(
        description="In how many seconds a machine is yours, with even odds; null: not known."
    )
    eta_p90_seconds: int | None = Field(description="The same in nine of ten cases.")
    because: str | None = Field(description="What that rests on, for people: what boots, what ends; only while queued.")
    paused: bool = Field(description="Whether it waits because its pool is paused.")
    held_back: str | None = Field(description="What its group has of what it may have, when that keeps it waiting.")
    hostname: str | None
    kind: Kind
    crd_command: str | None = Field(description="The command, its code and PIN blotted out.")
    exit_code: int | None
    output: str | None = Field(description="The last of what the command printed.")
    failure: str | None = Field(description="Why it failed, as a word for programs.")
    needs_line: bool = Field(description="Whether it waits for a fresh line: PUT …/line.")
    kept_until: datetime | None = Field(description="Until when its machine is kept for that line.")
    passed_over: bool = Field(description="Whether others are served until that line comes: a machine was kept for it.")
    trouble: str | None = Field(description="What went wrong last while it lived on, as a word for programs.")
    trouble_detail: str | None = Field(description="The same for people.")
    idle_until: datetime | None = Field(
        description="When it ends unless somebody uses its machine, or PUT …/activity says so; null: nobody was warned."
    )
    left_idle: bool = Field(description="Whether it ended because nobody used its machine.")
    extensible_until: datetime | None = Field(description="Until when POST …/extension makes it last; null: not now.")
    moves: int = Field(description="How often it lost its machine, or its job began again there.")
    failure_detail: str | None = Field(description="Why it failed and what to do next, for people.")
    ended_by: EndedBy | None = Field(description="Who ended it; service: its time was up, or its machine is lost.")
    pin: str | None = Field(description="The PIN of the desktop, when the line brought none; once it is active.")
    created_at: datetime
    assigned_at: datetime | None
    active_at: datetime | None
    ended_at: datetime | None
    expires_at: datetime | None


class Condition(Out):
    """Something that has to hold for a lease to go on, or a machine to be lent, and whether it does."""

    what: str
    holds: bool | None = Field(description="null: it is only told, as is what comes next.")
    detail: str | None


class Line(In):
    """A fresh line for a lease that waits for one."""

    crd_command: str = Field(
        min_length=1,
        max_length=JOB_BYTES,
        description="The line from https://remotedesktop.google.com/headless.",
    )


class LeaseWithToken(Lease):
    """A lease and the right to come back to it."""

    token: str = Field(description="Keep it: send it as Authorization: Bearer …")
    notice: str | None = Field(description="That the lease was there before, so that nothing new was started.")


async def require_json(request: Request) -> None:
    """Refuse a body that does not say it is JSON."""
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if sent != JSON:
        raise WrongType


router = APIRouter(prefix="/api", responses=responses(503))
v1 = APIRouter(prefix="/v1", responses=responses(503))
holder = [
    Depends(HTTPBearer(auto_error=False, description="The token that came with the lease.")),
    Depends(APIKeyCookie(name="lablink", auto_error=False, description="Set by the page, for the same browser.")),
]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=KEY_LENGTH,
        description="The same request with the same key opens one lease, whose answer is given again. Make it random "
        "(a UUID): whoever repeats key, e-mail and command is given the token.",
    ),
]
OPEN_PROBLEMS = responses(400, 403, 408, 409, 413, 415, 422, 429)


@v1.post(
    "/leases",
    status_code=201,
    response_model=LeaseWithToken,
    dependencies=[*holder, Depends(require_json)],
    tags=["leases"],
    responses={
        200: {"model": LeaseWithToken, "description": "The live lease of this e-mail, whose token was sent"},
        **OPEN_PROBLEMS,
    },
)
async def request_lease(wanted: LeaseWanted, request: Request, service: Here, key: Key = None) -> Response:
    """Ask for a machine. The lease is assigned at once, or queued."""
    pool = wanted.pool or service.settings.pool.name
    domains = service.settings.access.domains
    tokens = service.tokens(request)
    asked = LeaseRequest(wanted.email, wanted.crd_command, pool, domains, key, tokens, wanted.join_code)
    return await answer(service, await service.open_lease(request, asked))


@v1.get("/leases/{lease_id:uuid}", dependencies=holder, tags=["leases"], responses=responses(401, 404))
async def show_lease(lease_id: UUID, request: Request, service: Here) -> Lease:
    """How a lease of yours is now."""
    return Lease.model_validate(_lease(await service.lease_of(request, lease_id)))


@v1.get("/leases/{lease_id:uuid}/why", dependencies=holder, tags=["leases"], responses=responses(401, 404))
async def why(lease_id: UUID, request: Request, service: Here) -> list[Condition]:
    """Why a lease of yours is where it is: each condition and whether it holds; the last one says what happens next."""
    held = await service.lease_of(request, lease_id)
    return [Condition.model_validate(each) for each in await service.store.why_lease(held.lease.id)]


@v1.put(
    "/leases/{lease_id:uuid}/line",
    dependencies=[*holder, Depends(require_json)],
    tags=["leases"],
    responses=responses(400, 401, 404, 408, 409, 413, 415, 422),
)
async def renew(lease_id: UUID, line: Line, request: Request, service: Here) -> Lease:
    """Give a lease of yours the fresh line that it waits for."""
    held = await service.lease_of(request, lease_id)
    await renew_line(service.store, held, line.crd_command)
    return Lease.model_validate(_lease(await service.store.held_lease(lease_id, [held.token])))


@v1.post("/leases/{lease_id:uuid}/extension", dependencies=holder, tags=["leases"], responses=responses(401, 404, 409))
async def make_longer(lease_id: UUID, request: Request, service: Here) -> Lease:
    """Make a lease of yours a step longer, as far as its pool lets it: less while somebody waits."""
    held = await service.lease_of(request, lease_id)
    await extend(service.store, lease_id)
    return Lease.model_validate(_lease(await service.store.held_lease(lease_id, [held.token])))


@v1.put("/leases/{lease_id:uuid}/activity", dependencies=holder, tags=["leases"], responses=responses(401, 404))
async def still_here(lease_id: UUID, request: Request, service: Here) -> Lease:
    """Say that you are still there: it counts as use of the machine. A lease that is not active stays as it is."""
    held = await service.lease_of(request, lease_id)
    await service.store.still_here(lease_id)
    return Lease.model_validate(_lease(await service.store.held_lease(lease_id, [held.token])))


@v1.delete("/leases/{lease_id:uuid}", dependencies=holder, tags=["leases"], responses=responses(401, 404))
async def end_lease(lease_id: UUID, request: Request, service: Here) -> Lease:
    """End a lease of yours, whatever step it is at. One that is over stays as it is."""
    held = await service.lease_of(request, lease_id)
    await give_back(service.store, lease_id)
    return Lease.model_validate(_lease(await service.store.held_lease(lease_id, [held.token])))


async def answer(service: Service, opened: Opened) -> Response:
    """The lease as the answer to a request. One that was there before says that nothing new was started."""
    held, was_there = await service.store.held_lease(opened.lease_id, [opened.token]), opened.outcome == "live"
    notice = nothing_new((await service.store.pool_rules(held.lease.pool)).per_person) if was_there else None
    extra = {"token": held.token, "notice": notice}
    body = LeaseWithToken.model_validate(_lease(held) | extra).model_dump_json()
    return Response(body, 200 if was_there else 201, {"Location": f"/api/v1/leases/{held.lease.id}"}, JSON)


def _lease(held: HeldLease) -> dict[str, object]:
    seen = {name: getattr(held.lease, name) for name in Lease.model_fields if hasattr(held.lease, name)}
    told = {"failure_detail": failure_words(held.lease), "trouble_detail": trouble_words(held.lease)}
    return seen | told | {"pin": own_pin(held)}


router.include_router(v1)

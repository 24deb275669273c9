"""The HTTP API: JSON in, JSON out, every error a problem document."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.security import APIKeyCookie, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from allocator.checking import EMAIL_LENGTH, KEY_LENGTH
from allocator.conf_values import PoolName
from allocator.enrolling import Applicant, let_in
from allocator.errors import WrongType
from allocator.leasing import LeaseRequest, Opened, give_back, open_lease, own_pin
from allocator.problems import responses
from allocator.service import Here, Service
from allocator.views import EndedBy, HeldLease, LeaseStatus, VmStatus
from allocator.wording import NOTHING_NEW, failure_words
from client.command import JOB_BYTES
from client.protocol import HUB_HEADER, DatabaseAddress, Enrolment, Kind

JSON = "application/json"

log = structlog.get_logger()


class In(BaseModel):
    """What is sent; nothing else may be in it."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Out(BaseModel):
    """What is answered."""

    model_config = ConfigDict(from_attributes=True)


class LeaseWanted(In):
    """A request for a machine."""

    email: str = Field(min_length=3, max_length=EMAIL_LENGTH, examples=["ada@example.org"])
    crd_command: str = Field(
        min_length=1,
        max_length=JOB_BYTES,
        examples=["python3 -c 'print(42)'"],
        description="The line from https://remotedesktop.google.com/headless, or a program that the pool runs.",
    )
    pool: PoolName | None = Field(default=None, description="Left out: the usual one.")


class Lease(Out):
    """A lease as its holder sees it."""

    id: UUID
    email: str
    status: LeaseStatus
    pool: str
    position: int | None = Field(description="Place in the queue, from 1; only while queued.")
    eta_seconds: int | None = Field(description="In how many seconds a machine comes free at the latest, if known.")
    hostname: str | None
    kind: Kind
    crd_command: str | None = Field(description="The command, its code and PIN blotted out.")
    exit_code: int | None
    output: str | None = Field(description="The last of what the command printed.")
    failure: str | None = Field(description="Why it failed, as a word for programs.")
    failure_detail: str | None = Field(description="Why it failed and what to do next, for people.")
    ended_by: EndedBy | None = Field(description="Who ended it; service: its time was up, or its machine is lost.")
    pin: str | None = Field(description="The PIN of the desktop, when the line brought none; once it is active.")
    created_at: datetime
    assigned_at: datetime | None
    active_at: datetime | None
    ended_at: datetime | None
    expires_at: datetime | None


class LeaseWithToken(Lease):
    """A lease and the right to come back to it."""

    token: str = Field(description="Keep it: send it as Authorization: Bearer …")
    notice: str | None = Field(description="That the lease was there before, so that nothing new was started.")


class Vm(Out):
    """A machine. Who has it is not told."""

    id: int
    hostname: str
    status: VmStatus
    pool: str
    created_at: datetime
    updated_at: datetime
    seen_at: datetime | None = Field(description="When its client last said hello.")


class SignedIdentity(In):
    """What an EC2 instance finds under `/latest/dynamic/instance-identity`."""

    document: str = Field(max_length=16_384, description="The instance identity document, byte for byte.")
    signature: str = Field(max_length=4096, description="AWS's signature of it, in base64.")


class EnrolmentWanted(In):
    """A machine that wants to be let in."""

    token: str = Field(min_length=1, max_length=512, pattern=r"^[!-~]+$", description="The join token.")
    verifier: str = Field(
        max_length=512,
        pattern=r"^SCRAM-SHA-256\$[0-9]{4,7}:[A-Za-z0-9+/]{14,62}={0,2}\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=$",
        description="The SCRAM-SHA-256 verifier of the password that the machine made; the password stays there.",
    )
    identity: SignedIdentity | None = Field(default=None, description="What a machine of the fleet must show as well.")


HubToken = Annotated[
    str | None,
    Header(
        alias=HUB_HEADER,
        pattern=r"^[0-9a-f]{64}$",
        description="The SHA-256 of the token with which the machine can speak over the hub; the token stays there.",
    ),
]
"""Not in the body: an allocator that knows no hub would refuse that."""


class FreeMachines(Out):
    """How many machines a request would get at once."""

    count: int


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
OPEN_PROBLEMS = responses(400, 408, 409, 413, 415, 422)


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
    asked = LeaseRequest(wanted.email, wanted.crd_command, pool, domains, key, service.tokens(request))
    return await answer(service, await open_lease(service.store, service.metrics, asked))


@v1.get("/leases/{lease_id:uuid}", dependencies=holder, tags=["leases"], responses=responses(401, 404))
async def show_lease(lease_id: UUID, request: Request, service: Here) -> Lease:
    """How a lease of yours is now."""
    return Lease.model_validate(_lease(await service.lease_of(request, lease_id)))


@v1.delete("/leases/{lease_id:uuid}", dependencies=holder, tags=["leases"], responses=responses(401, 404))
async def end_lease(lease_id: UUID, request: Request, service: Here) -> Lease:
    """End a lease of yours, whatever step it is at. One that is over stays as it is."""
    held = await service.lease_of(request, lease_id)
    await give_back(service.store, lease_id)
    return Lease.model_validate(_lease(await service.store.held_lease(lease_id, [held.token])))


@v1.get("/vms", tags=["vms"])
async def list_vms(service: Here) -> list[Vm]:
    """Every machine. Nothing personal is in it."""
    return [Vm.model_validate(vm) for vm in await service.store.vms()]


@v1.post(
    "/enrolments",
    status_code=201,
    tags=["vms"],
    dependencies=[Depends(require_json)],
    responses=responses(400, 403, 408, 413, 415, 422),
)
async def enrol(wanted: EnrolmentWanted, service: Here, hub_token_sha256: HubToken = None) -> Enrolment:
    """Let a machine in, with the join token that an admin made for it. The same again is answered the same."""
    shown = (wanted.identity.document, wanted.identity.signature) if wanted.identity else None
    hub_sha256 = bytes.fromhex(hub_token_sha256) if hub_token_sha256 else None
    applicant = Applicant(wanted.token, wanted.verifier, shown, hub_sha256)
    enrolled = await let_in(service.store, service.settings.identity, service.clouds, applicant)
    log.info("vm.enrolled", vm=enrolled.vm_id, hostname=enrolled.hostname)
    database = service.settings.database_for_machines
    address = DatabaseAddress(
        host=database.host,
        port=database.port,
        database=database.name,
        user=enrolled.role,
        tls=database.tls,
        ca_pem=database.ca_file.read_text() if database.ca_file else None,
    )
    return Enrolment(
        vm_id=enrolled.vm_id, hostname=enrolled.hostname, transport=service.settings.transport.mode, database=address
    )


@router.get("/unassigned_vms_count", tags=["vms"])
async def unassigned_vms_count(service: Here) -> FreeMachines:
    """How many machines a request would get at once."""
    return FreeMachines(count=await service.store.free_vms())


async def answer(service: Service, opened: Opened) -> Response:
    """The lease as the answer to a request. One that was there before says that nothing new was started."""
    held, was_there = await service.store.held_lease(opened.lease_id, [opened.token]), opened.outcome == "live"
    extra = {"token": held.token, "notice": NOTHING_NEW if was_there else None}
    body = LeaseWithToken.model_validate(_lease(held) | extra).model_dump_json()
    return Response(body, 200 if was_there else 201, {"Location": f"/api/v1/leases/{held.lease.id}"}, JSON)


def _lease(held: HeldLease) -> dict[str, object]:
    seen = {name: getattr(held.lease, name) for name in Lease.model_fields if hasattr(held.lease, name)}
    return seen | {"failure_detail": failure_words(held.lease), "pin": own_pin(held)}


router.include_router(v1)

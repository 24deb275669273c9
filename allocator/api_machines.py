"""What the HTTP API says of machines, and how one is let in."""

from datetime import datetime
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Header, Path
from pydantic import Field

from allocator.api import Condition, In, Out, require_json
from allocator.api_fleet import admins
from allocator.enrolling import Applicant, let_in
from allocator.problems import responses
from allocator.service import Here
from allocator.views import VmStatus
from client.protocol import HUB_HEADER, DatabaseAddress, Enrolment

log = structlog.get_logger()
router = APIRouter(prefix="/api", responses=responses(503))


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


Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9._-]{1,255}$")]


class FreeMachines(Out):
    """How many machines a request would get at once."""

    count: int


@router.get("/v1/vms", tags=["vms"])
async def list_vms(service: Here) -> list[Vm]:
    """Every machine. Nothing personal is in it."""
    return [Vm.model_validate(vm) for vm in await service.store.vms()]


@router.get("/v1/vms/{hostname}/why", tags=["vms"], dependencies=admins, responses=responses(401, 404, 422, 429))
async def why_vm(hostname: Name, service: Here) -> list[Condition]:
    """Why a machine is lent to nobody: conditions, and whether they hold; the last says what happens next."""
    return [Condition.model_validate(each) for each in await service.store.why_vm(hostname)]


@router.post(
    "/v1/enrolments",
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

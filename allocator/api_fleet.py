"""The HTTP API for admins: operations on the fleet, how far they are, and the machines in the cloud."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.security import HTTPBearer
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field

from allocator.api import In, Out, require_json
from allocator.conf_values import PoolName
from allocator.errors import InvalidRequest, Unavailable
from allocator.fleet import acts
from allocator.fleet.acts import Act
from allocator.fleet.cost import costs, total
from allocator.problems import responses
from allocator.service import Here, Service
from allocator.views import OperationStatus, OperationView, VmStatus

LOOK_SECONDS = 0.5
"""Between two looks at an operation that somebody follows; its row changes as often."""

Number = Annotated[int, Field(ge=1, le=1000, description="How many machines.")]
Hostname = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", examples=["vm-7"])]
Drain = Annotated[
    bool, Field(description="Wait for people on machines that go; those are lent to nobody else meanwhile.")
]


class PlanWanted(In):
    """What an apply would do, and who is in its way."""

    kind: Literal["plan"]


class ApplyWanted(In):
    """Make the machines what the table fleet_vms wants."""

    kind: Literal["apply"]
    drain: Drain = False


class GrowWanted(In):
    """Make so many machines more. Those that are wanted and not made yet count."""

    kind: Literal["grow"]
    number: Number
    pool: PoolName = "default"
    prefix: Hostname = "vm"
    instance_type: Annotated[str, Field(pattern=r"^[a-z0-9-]+[.][a-z0-9-]+$")] | None = None
    ami_id: Annotated[str, Field(pattern=r"^ami-[0-9a-f]{8,17}$")] | None = None
    disk_gb: Annotated[int, Field(ge=8, le=16384)] | None = None


class ShrinkWanted(In):
    """Remove so many idle machines."""

    kind: Literal["shrink"]
    number: Number
    pool: PoolName | None = Field(default=None, description="Left out: any.")
    drain: Drain = False


class ReplaceWanted(In):
    """Remove a machine and make a new one of its name."""

    kind: Literal["replace"]
    hostname: Hostname
    drain: Drain = False


class DestroyWanted(In):
    """Remove every machine of the fleet."""

    kind: Literal["destroy"]
    confirm: str = Field(max_length=255, description="The fleet's name.")
    drain: Drain = False


Wanted = Annotated[
    PlanWanted | ApplyWanted | GrowWanted | ShrinkWanted | ReplaceWanted | DestroyWanted, Field(discriminator="kind")
]


class Operation(Out):
    """One run of something long."""

    id: int
    kind: str = Field(description="What it is: fleet grow, backup, migrate …")
    status: OperationStatus = Field(description="Waiting: for people, while others may run.")
    started_by: str
    started_at: datetime
    finished_at: datetime | None
    done: int = Field(description="How much is done.")
    total: int | None = Field(description="Of how much, if that is known.")
    step: str | None = Field(description="What it is at; only until it is over.")
    result: Any = Field(description="What it did, once it is done.")
    error: str | None = Field(description="Why it failed, and what to do next.")


class FleetVm(Out):
    """A machine of the fleet."""

    hostname: str
    pool: str
    wanted: bool = Field(description="False until it is removed.")
    instance_type: str | None = Field(description="Null: as the fleet's settings say.")
    instance_id: str | None
    made_at: datetime | None
    status: VmStatus | None = Field(description="Null until it has enrolled.")
    draining: bool | None
    held_by: str | None
    held_until: datetime | None
    reboots: int
    why: str = Field(description="How it is, in words.")


class KindCost(Out):
    """What machines of one pool and type cost; null where no price is set."""

    pool: str
    instance_type: str
    vms: int
    hour: float | None
    month: float | None


class FleetCost(BaseModel):
    """What the machines cost that are there, by pool and type."""

    currency: str
    kinds: list[KindCost]
    hour: float = Field(description="Of all that have a price.")
    month: float


async def admin_of(request: Request, service: Here) -> str:
    """The name of the admin who sent the request."""
    return await service.admin_of(request)


async def operation_of(number: Annotated[int, Path(ge=1, le=2**63 - 1)], service: Here) -> OperationView:
    """The operation of that number."""
    return await service.store.operation(number)


Admin = Annotated[str, Depends(admin_of)]
Found = Annotated[OperationView, Depends(operation_of)]

admins = [
    Depends(HTTPBearer(auto_error=False, scheme_name="Admin", description="lablink admins add NAME")),
    Depends(admin_of),
]
"""What a request must bring that only admins may make."""

router = APIRouter(prefix="/api/v1", responses=responses(401, 429, 503), dependencies=admins)


@router.post(
    "/operations",
    status_code=202,
    tags=["fleet"],
    dependencies=[Depends(require_json)],
    responses=responses(400, 408, 409, 413, 415, 422),
)
async def begin_operation(wanted: Wanted, admin: Admin, service: Here, response: Response) -> Operation:
    """Begin an operation on the fleet. It goes on by itself; one runs at a time."""
    act, drain = _act(wanted, service), getattr(wanted, "drain", False)
    number = await service.desk.begin(act, admin, drain=drain)
    response.headers["Location"] = f"/api/v1/operations/{number}"
    return Operation.model_validate(await service.store.operation(number))


@router.get("/operations", tags=["fleet"], responses=responses(422))
async def list_operations(service: Here, limit: Annotated[int, Query(ge=1, le=1000)] = 20) -> list[Operation]:
    """The newest operations of any kind, the newest first."""
    return [Operation.model_validate(each) for each in await service.store.operations(limit)]


@router.get("/operations/{number:int}", tags=["fleet"], responses=responses(404, 422))
async def show_operation(found: Found) -> Operation:
    """How far an operation is, or how it ended."""
    return Operation.model_validate(found)


@router.get(
    "/operations/{number:int}/events",
    tags=["fleet"],
    response_class=EventSourceResponse,
    responses=responses(404, 422),
)
async def follow_operation(found: Found, service: Here) -> AsyncIterator[ServerSentEvent]:
    """Every change of the operation as a progress event, then an end event; ends with the service, too."""
    async for seen in _seen(found, service):
        event = "end" if seen.finished_at else "progress"
        yield ServerSentEvent(event=event, raw_data=Operation.model_validate(seen).model_dump_json())


@router.delete("/operations/{number:int}", status_code=202, tags=["fleet"], responses=responses(404, 409, 422))
async def cancel_operation(found: Found, admin: Admin, service: Here) -> Operation:
    """End an operation on the fleet, wherever it runs. What Terraform is at it finishes; the rest can be done later."""
    await service.desk.cancel(found.id, admin)
    return Operation.model_validate(await service.store.operation(found.id))


@router.get("/fleet", tags=["fleet"])
async def list_fleet(service: Here) -> list[FleetVm]:
    """Every machine of the fleet, and who has it."""
    return [FleetVm.model_validate(vm) for vm in await service.store.fleet()]


@router.get("/fleet/cost", tags=["fleet"], responses=responses(409))
async def cost_of_fleet(service: Here) -> FleetCost:
    """What the machines cost that are there, with the prices of the configuration. Disks and traffic are not in it."""
    told, rows = service.settings.fleet, [asdict(vm) for vm in await service.store.fleet()]
    found = costs(rows, service.desk.fleet().default_type, told.prices)
    everything = total(found)
    kinds = [KindCost.model_validate(each) for each in found]
    return FleetCost(currency=told.currency, kinds=kinds, hour=everything.hour or 0, month=everything.month or 0)


def _act(wanted: Wanted, service: Service) -> Act[Any]:
    """What is wanted, as an act. Raises InvalidRequest when a fleet would go whose name is another."""
    match wanted:
        case PlanWanted():
            return acts.plan()
        case ApplyWanted():
            return acts.apply()
        case GrowWanted():
            kind = {"ami_id": wanted.ami_id, "instance_type": wanted.instance_type, "disk_gb": wanted.disk_gb}
            return acts.grow(wanted.number, wanted.pool, wanted.prefix, **kind)
        case ShrinkWanted():
            return acts.shrink(wanted.number, wanted.pool)
        case ReplaceWanted():
            return acts.replace(wanted.hostname)
        case DestroyWanted():
            if wanted.confirm != (name := service.desk.fleet().name):
                raise InvalidRequest(
                    fields={"confirm": f"All machines go: repeat the fleet's name in confirm, {name}."}
                )
            return acts.destroy()


async def _seen(found: OperationView, service: Service) -> AsyncIterator[OperationView]:
    """The operation as it is, and each time that it is another, until it is over or the service stops."""
    yield found
    while not found.finished_at:
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await service.stopping.wait()
                return
        with suppress(Unavailable):
            before, found = found, await service.store.operation(found.id)
            if found != before:
                yield found

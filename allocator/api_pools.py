"""The HTTP API of pools: how large each is and who waits, for everybody; why, and pausing one, for admins."""

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field

from allocator.api import Condition, Out
from allocator.api_fleet import Admin, admins
from allocator.conf_values import PoolName
from allocator.problems import responses
from allocator.service import Here, Service


class PoolNow(Out):
    """A pool as everybody may see it."""

    name: str
    free: int = Field(description="Machines that can be had now; none while it is paused.")
    lent: int
    coming: int = Field(description="Machines that boot or are cleaned.")
    waiting: int = Field(description="People in line.")
    eta_seconds: int | None = Field(description="How long whoever asks now would wait, with even odds.")
    eta_p90_seconds: int | None = Field(description="The same in nine of ten cases.")
    paused: bool = Field(description="Nobody is served, and machines neither come nor go.")
    wanted: int | None = Field(description="How many machines it is to have; null: they come and go by hand only.")
    missing: int | None = Field(description="How many of these are not even on their way.")
    stopped: bool = Field(description="Whether something keeps them from coming: `lablink why POOL` says what.")
    hours: str | None = Field(description="What its schedule asks for now or next, for people.")


router = APIRouter(prefix="/api/v1/pools", responses=responses(503))


@router.get("", tags=["pools"])
async def list_pools(service: Here) -> list[PoolNow]:
    """Every pool: its machines, who waits and how long, and what comes next."""
    return [PoolNow.model_validate(each) for each in await service.store.pool_status()]


@router.get("/{pool}/why", tags=["pools"], dependencies=admins, responses=responses(401, 422, 429))
async def why_pool(pool: Annotated[PoolName, Path()], service: Here) -> list[Condition]:
    """Why somebody waits there, or nobody has to: conditions, and whether they hold; the last says what comes next."""
    return [Condition.model_validate(each) for each in await service.store.why_pool(pool)]


@router.put("/{pool}/pause", tags=["fleet"], dependencies=admins, responses=responses(401, 422, 429))
async def pause_pool(pool: Annotated[PoolName, Path()], admin: Admin, service: Here) -> PoolNow:
    """Lend none of its machines, and let none come or go. Who has one keeps it; who asks waits as long as it takes."""
    return await _paused(service, pool, admin, paused=True)


@router.delete("/{pool}/pause", tags=["fleet"], dependencies=admins, responses=responses(401, 422, 429))
async def resume_pool(pool: Annotated[PoolName, Path()], admin: Admin, service: Here) -> PoolNow:
    """Let it go on, also where machines that did not come had stopped its growth."""
    return await _paused(service, pool, admin, paused=False)


async def _paused(service: Service, pool: str, admin: str, *, paused: bool) -> PoolNow:
    await service.store.pause_pool(pool, f"admin:{admin}", paused=paused)
    return next(PoolNow.model_validate(each) for each in await service.store.pool_status() if each.name == pool)

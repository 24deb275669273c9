"""What tells machines how the service is: alive, ready, and its figures."""

import asyncio
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from allocator.doorman import Doorman
from allocator.errors import DatabaseUnavailable, Stopping, Unavailable
from allocator.metrics import CONTENT_TYPE
from allocator.problems import responses
from allocator.service import Here

READY_SECONDS = 0.9

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """How the service is."""

    status: Literal["alive", "ready"]


@router.get("/livez")
async def livez() -> Health:
    """Whether the process answers; the database is not asked."""
    return Health(status="alive")


@router.get("/readyz", responses=responses(503))
async def readyz(service: Here) -> Health:
    """Whether requests are to come here: the database answers, changes in it are heard, nobody has asked us to stop."""
    if service.leaving.is_set():
        raise Stopping
    try:
        async with asyncio.timeout(READY_SECONDS):
            await service.store.check()
    except TimeoutError:
        raise DatabaseUnavailable from None
    if not (service.feed.listening.is_set() and service.sweeper.in_contact.is_set()):
        raise DatabaseUnavailable("The connection to it is being set up. Try again in a few seconds.")
    return Health(status="ready")


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request, service: Here) -> Response:
    """Figures for Prometheus. They come without the database's when it is away."""
    try:
        tally = await service.store.tally()
    except Unavailable:
        tally = None
    doorman: Doorman = request.app.state.doorman
    page = service.metrics.page(tally, service.feed.subscribers, service.hub.machines, doorman.waiting)
    return Response(page, media_type=CONTENT_TYPE)

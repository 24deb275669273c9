"""Puts the service together: routes, what wraps every request, and which status each error has."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from allocator import api, api_fleet, api_machines, api_pools, docs, errors, front, health, pages, status
from allocator.config import Settings
from allocator.problems import Problem, Problems
from allocator.service import Service, opened
from allocator.templates import STATIC, Templates
from allocator.web import (
    AnswerMiddleware,
    BodyLimitMiddleware,
    HeadersMiddleware,
    HeadMiddleware,
    SameSiteMiddleware,
    Site,
)
from client.protocol import HUB_PATH

STATUSES: dict[type[errors.ServiceError], int] = {
    errors.InvalidRequest: 422,
    errors.KeyReused: 422,
    errors.LeaseLive: 409,
    errors.NoToken: 401,
    errors.NoSuchLease: 404,
    errors.NoSuchPool: 422,
    errors.NoSuchVm: 404,
    errors.JoinRefused: 403,
    errors.IllegalChange: 409,
    errors.NothingAsked: 409,
    errors.NotLonger: 409,
    errors.JoinCodeRefused: 403,
    errors.BudgetSpent: 409,
    errors.MembersOnly: 403,
    errors.FleetMissing: 409,
    errors.NoSuchOperation: 404,
    errors.OperationUnderWay: 409,
    errors.CrossSite: 403,
    errors.WrongHost: 421,
    errors.TooLarge: 413,
    errors.TooSlow: 408,
    errors.WrongType: 415,
    errors.TooManyTokens: 429,
    errors.Unavailable: 503,
    errors.DatabaseFailed: 500,
}
"""Which HTTP status an error is answered with; a class that is not here has its parent's."""

ABOUT = "Lends a machine from a pool to a person: ask, and it is yours in a moment or you are told your place in line."


def status_of(error: errors.ServiceError) -> int:
    """The HTTP status of an error."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def create_app(settings: Settings) -> FastAPI:
    """The service as an ASGI application. Nothing is opened before its lifespan begins."""
    site = Site(settings.server.public_url, settings.server.host)
    templates = Templates()
    problems = Problems(templates, status_of)
    leaving = asyncio.Event()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with opened(settings, site, templates, problems, leaving) as service:
            app.state.service = service
            yield

    app = _Documented(
        title="LabLink",
        version=version("lablink"),
        description=ABOUT,
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        middleware=_around_every_request(site, problems, leaving, settings.server.body_limit),
        exception_handlers=dict.fromkeys((errors.ServiceError, RequestValidationError, HTTPException), problems.answer),
    )
    for router in (front.pages, front.forms, pages.pages, status.pages, health.router, docs.router):
        app.include_router(router)
    for part in (api, api_machines, api_fleet, api_pools):
        app.include_router(part.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


def _around_every_request(site: Site, problems: Problems, leaving: asyncio.Event, body_limit: int) -> list[Middleware]:
    """What wraps the routes, the outermost first."""
    return [
        Middleware(HubMiddleware),
        Middleware(HeadersMiddleware, site=site, leaving=leaving),
        Middleware(AnswerMiddleware, answer=problems.answer),
        Middleware(SameSiteMiddleware, site=site),
        Middleware(BodyLimitMiddleware, limit=body_limit),
        Middleware(HeadMiddleware),
    ]


class HubMiddleware:
    """Leads machines' WebSockets straight to the hub: 10,000 would each keep a frame of all that is further in."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket" or scope["path"] != HUB_PATH:
            return await self.app(scope, receive, send)
        service: Service = scope["app"].state.service
        return await service.hub.attend(WebSocket(scope, receive, send))


class _Documented(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, with our words and the schema of our problems instead of FastAPI's."""
        if self.openapi_schema is None:
            document = super().openapi()
            schemas = document["components"]["schemas"]
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= schema.pop("$defs") | {"Problem": schema}
            for operation in (each for path in document["paths"].values() for each in path.values()):
                operation["summary"] = operation["description"].partition(".")[0]
                if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                    del operation["responses"]["422"]
        return super().openapi()

"""What one running service consists of: opened once, in one place, and handed to every route."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request

from allocator.arrivals import Arrivals
from allocator.calls import Calls
from allocator.checking import tidy_email
from allocator.config import Settings
from allocator.connection import connector, pooled_connector
from allocator.cookies import Cookie, bearer_tokens
from allocator.errors import JoinCodeRefused, NotAdmin, NoToken
from allocator.feed import Feed
from allocator.fleet.cost import priced
from allocator.fleet.desk import Desk
from allocator.fleet.identity import Clouds, clouds_of
from allocator.fleet.scale import FleetActuator
from allocator.fleet.watch import FleetWatch
from allocator.floods import Floods
from allocator.guesses import Guesses
from allocator.hub import Hub
from allocator.join_codes import plain
from allocator.leasing import LeaseRequest, Opened, open_lease
from allocator.metrics import Metrics
from allocator.problems import Problems
from allocator.schedule import BackupSchedule
from allocator.store import Store
from allocator.sweeps import Sweeper
from allocator.tasks import alongside
from allocator.templates import Templates
from allocator.views import HeldLease
from allocator.web import Site
from client.protocol import CHANNEL


@dataclass(frozen=True, slots=True)
class Service:
    """The parts, open."""

    settings: Settings
    site: Site
    cookie: Cookie
    templates: Templates
    problems: Problems
    metrics: Metrics
    store: Store
    feed: Feed
    hub: Hub
    sweeper: Sweeper
    clouds: Clouds
    desk: Desk
    leaving: asyncio.Event
    """Set when load balancers are to send nobody here any more."""
    tokens_tried: Guesses = field(default_factory=Guesses)
    codes_tried: Guesses = field(default_factory=Guesses)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when no stream may go on."""

    def end_streams(self) -> None:
        """Let every stream end, also those that come: they would keep the service from stopping."""
        self.stopping.set()
        self.feed.end_streams()

    async def hand_over(self) -> None:
        """Let machines go to other allocators, and every stream end."""
        self.end_streams()
        await self.hub.hand_over()

    async def admin_of(self, request: Request) -> str:
        """The admin whose token came with the request. Raises NotAdmin, TooManyTokens."""
        token = next(iter(bearer_tokens(request)), None)
        if token is None:
            raise NotAdmin
        with self.tokens_tried.counted(_address(request), token, NotAdmin):
            admin = await self.store.admin_of(token)
            if admin is None:
                raise NotAdmin
        return admin

    async def open_lease(self, request: Request, asked: LeaseRequest) -> Opened:
        """As `leasing.open_lease`; a join code that lets nobody in is a guess. Raises TooManyTokens.

        Guesses are counted for each person at an address: behind a proxy all have one, and nobody must keep others out.
        """
        code, who = asked.join_code, f"{_address(request)} {tidy_email(asked.email).lower()}"
        with self.codes_tried.counted(who, plain(code), JoinCodeRefused) if code else nullcontext():
            return await open_lease(self.store, self.metrics, asked)

    def tokens(self, request: Request) -> list[str]:
        """Every token that comes with a request."""
        return [*bearer_tokens(request), *(token for _, token in self.cookie.kept(request))]

    async def lease_of(self, request: Request, lease_id: UUID) -> HeldLease:
        """The lease, if it is the caller's. Raises NoToken when nothing was shown, NoSuchLease when it does not fit."""
        tokens = self.tokens(request)
        if not tokens:
            raise NoToken
        return await self.store.held_lease(lease_id, tokens)


@asynccontextmanager
async def opened(
    settings: Settings, site: Site, templates: Templates, problems: Problems, leaving: asyncio.Event
) -> AsyncIterator[Service]:
    """The service, with its feed and sweeps running; the database may come later."""
    metrics, clouds = Metrics(), clouds_of(settings.identity)
    sweeper = Sweeper(
        connector(settings.database, "sweep"),
        priced(settings.pool, settings.fleet),
        settings.transport,
        settings.sweeps.period_seconds,
        metrics,
    )
    async with (
        Calls.open(pooled_connector(settings.database, "hub")) as calls,
        storing(settings, hub := Hub(calls)) as store,
        following(settings, store, hub) as feed,
        alongside(sweeper.run()),
        alongside(BackupSchedule(settings.database, settings.backup).run()),
        alongside(Arrivals(store, clouds).run()),
        alongside(FleetWatch(settings.database, settings.fleet).run()),
        alongside(FleetActuator(settings.database, settings.fleet).run()),
        Desk.opened(settings.database, settings.fleet) as desk,
    ):
        service = Service(
            settings, site, Cookie(site), templates, problems, metrics, store, feed, hub, sweeper, clouds, desk, leaving
        )
        yield service
        service.end_streams()


@asynccontextmanager
async def storing(settings: Settings, hub: Hub) -> AsyncIterator[Store]:
    """A store that tells the hub of machines that it has lent, before anybody else hears of it."""
    connect = pooled_connector(settings.database, "web")
    async with Store.open(connect, settings.database.connections, hub.telling.lending) as store:
        yield store


@asynccontextmanager
async def following(settings: Settings, store: Store, hub: Hub) -> AsyncIterator[Feed]:
    """A feed that follows what changes, tells the hub of machines that did, and has those stopped who flood it."""
    floods = Floods(store.stop_flood)

    def heard(pid: int, channel: str, payload: str) -> None:
        floods.heard(pid, payload)
        if channel == CHANNEL:
            hub.telling.heard(payload)

    feed = Feed(connector(settings.database, "feed"), settings.pool.name, heard, missed=hub.telling.missed)
    async with alongside(floods.run()), alongside(feed.run()):
        yield feed


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


async def service_of(request: Request) -> Service:
    """The service that a request came to. Not a plain function: FastAPI would send a thread for its answer."""
    service: Service = request.app.state.service
    return service


Here = Annotated[Service, Depends(service_of)]

"""Three allocators on one database, a load balancer before them, machines that speak over the hub, and a browser."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest_asyncio
from playwright.async_api import Browser

from tests.support import LIMIT_SECONDS
from tests.support.allocator import Allocator
from tests.support.balancer import Balancer, balancing
from tests.support.browser import Tab, chromium, new_tab
from tests.support.database import Database
from tests.support.hub import hub_machine, hub_transport
from tests.support.machine import Machine, Pool
from tests.support.up import LOOK_EVERY

REPLICAS = 3
MACHINES = 6


@dataclass(slots=True)
class Replicas:
    """The allocators, and what stands before and behind them."""

    balancer: Balancer
    allocators: list[Allocator]
    machines: list[Machine]
    pool: Pool

    @property
    def url(self) -> str:
        """Where people and machines find them."""
        return self.balancer.url

    async def connected(self, among: list[Allocator]) -> int:
        """How many machines are connected to these."""
        return int(sum([await each.figure("lablink_hub_machines") for each in among]))

    async def all_connected(self, among: list[Allocator]) -> None:
        """Return once every machine is connected to one of these."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while await self.connected(among) < len(self.machines):  # noqa: ASYNC110
                await asyncio.sleep(LOOK_EVERY)

    async def with_the_page(self) -> Allocator:
        """The allocator that has the only open page, once that is open."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while True:
                for each in self.allocators:
                    if await each.figure("lablink_open_pages"):
                        return each
                await asyncio.sleep(LOOK_EVERY)

    async def at_work(self) -> Allocator:
        """The same, once machines are connected to it, too: where they have left it, everybody connects anew."""
        while not await self.connected([found := await self.with_the_page()]):
            self.balancer.cut()
            await self.all_connected(self.allocators)
        return found

    async def followed(self, browser: Browser, go: Path) -> tuple[Tab, Allocator]:
        """A page whose command runs until `go` is there, and the allocator that it is open at, as machines are."""
        tab = await new_tab(browser)
        await tab.ask(self.url, f"sh -c 'while [ ! -e {go} ]; do sleep 0.02; done'")
        await tab.shows("Your command is running")
        return tab, await self.at_work()

    def others(self, one: Allocator) -> list[Allocator]:
        """All but one."""
        return [each for each in self.allocators if each is not one]


@pytest_asyncio.fixture
async def replicas(database: Database, tmp_path: Path) -> AsyncIterator[Replicas]:
    """Three that are ready, and six machines that are connected to them and free.

    Who is told to stop lingers for longer than a busy computer takes to notice it; at the end nobody waits for that.
    """
    allocators = [Allocator.somewhere() for _ in range(REPLICAS)]
    machines = [await hub_machine(database, tmp_path / f"vm-{n}", f"vm-{n}") for n in range(MACHINES)]
    async with AsyncExitStack() as opened:
        starts = [opened.enter_async_context(each.serving(database, "server.linger_seconds=10")) for each in allocators]
        await asyncio.gather(*starts)
        balancer = await opened.enter_async_context(balancing(*allocators))
        for machine in machines:
            await opened.enter_async_context(machine.serving_over(hub_transport(machine, balancer.url)))
        own = Replicas(balancer, allocators, machines, await Pool.of(database))
        await own.all_connected(allocators)
        yield own
        for each in allocators:
            await each.kill()


@pytest_asyncio.fixture
async def browser() -> AsyncIterator[Browser]:
    """A browser of this test's own."""
    async with chromium() as browser:
        yield browser

"""A load balancer in front of several allocators, as HAProxy or one of AWS's: round robin, by what /readyz says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from allocator.tasks import alongside
from tests.support import LIMIT_SECONDS
from tests.support.allocator import Allocator
from tests.support.front import Front, listening
from tests.support.machine import reached
from tests.support.up import LOOK_EVERY

CHECK_SECONDS = 0.2


@dataclass(slots=True)
class Balancer(Front):
    """Leads each connection to the next allocator that is up; one that does not take it is passed over."""

    allocators: list[Allocator] = field(default_factory=list)
    up: list[Allocator] = field(default_factory=list)
    """Those that said last that they are ready, the one whose turn it is first."""
    _reached: list[Allocator] = field(default_factory=list)
    """Those to which a connection is being opened."""

    async def reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the next one that takes it. Raises ConnectionRefusedError when nobody does."""
        for allocator in list(self.up):
            if allocator not in self.up:
                continue
            self._is_up(allocator)  # its turn comes again after the others'
            self._reached.append(allocator)
            try:
                return await asyncio.open_connection("127.0.0.1", allocator.port)
            except OSError:
                continue
            finally:
                self._reached.remove(allocator)
        raise ConnectionRefusedError

    async def look(self) -> None:
        """Ask each allocator how it is, for ever."""
        while True:
            for allocator in list(self.allocators):
                if await allocator.readiness() != 200 and await allocator.readiness() != 200:  # not just slow
                    self.up = [each for each in self.up if each is not allocator]
                elif allocator in self.allocators and allocator not in self.up:  # not taken out meanwhile
                    self._is_up(allocator)
            await asyncio.sleep(CHECK_SECONDS)

    async def take_out(self, allocator: Allocator) -> None:
        """Lead nobody there any more; return when only machines are linked to it, as admins do who then stop it."""
        self.allocators.remove(allocator)
        self.up = [each for each in self.up if each is not allocator]
        async with asyncio.timeout(LIMIT_SECONDS):
            while await allocator.figure("lablink_hub_machines") < self._open_to(allocator):  # noqa: ASYNC110
                await asyncio.sleep(LOOK_EVERY)

    def _open_to(self, allocator: Allocator) -> int:
        there: int = sum(_leads_to(each) == allocator.port for each in self._open)
        return there + self._reached.count(allocator)

    def _is_up(self, allocator: Allocator) -> None:
        self.up = [*(each for each in self.up if each is not allocator), allocator]


def _leads_to(writer: asyncio.StreamWriter) -> int | None:
    """The port at its other end; None where nobody was there any more when it was opened."""
    there = writer.get_extra_info("peername")
    return int(there[1]) if there else None


@asynccontextmanager
async def balancing(*allocators: Allocator) -> AsyncIterator[Balancer]:
    """A balancer before these allocators, all of which are up."""
    balancer = Balancer(0, allocators=list(allocators))
    async with listening(balancer), alongside(balancer.look()):
        await reached(lambda: len(balancer.up) == len(allocators))
        yield balancer

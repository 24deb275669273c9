"""What the machines of a rehearsal do, and what befalls them."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from allocator.rehearsal.plan import Plan
from allocator.rehearsal.stage import Order, Stage

WIPE_SECONDS, CLAIM_SECONDS, DESKTOP_SECONDS = 4.0, 0.2, 10.0
SLOWLY = (10, 50, 400)
"""How many times as long slow machines take to claim."""
LONGEST_WIPE = 20.0
"""How long they take to wipe at most: one that takes minutes and reboots meanwhile is cleaned for ever."""

REPAIR_SECONDS = 600.0

Active = Callable[[str], None]
"""Is told the lease that has become active."""


@dataclass(slots=True)
class Machine:
    """One machine, by its role. It does as it is told, once each, while it is up."""

    stage: Stage
    role: str
    active: Active
    chance: random.Random = field(init=False)
    up: bool = False
    slowness: int = 1
    _life: int = 0
    """How many times it went down: what it had begun before is not done."""
    _begun: set[Order] = field(default_factory=set)
    _memory: tuple[int, str | None] = (0, None)
    """The highest epoch and its lease, as its journal has them."""

    def __post_init__(self) -> None:
        self.chance = self.stage.chance(self.role)
        if self.chance.uniform(0, 100) < self._plan.mishaps.slow:
            self.slowness = self.chance.choice(SLOWLY)
        self.stage.later(self._plan.boot(self.chance), self.boots)

    @property
    def _plan(self) -> Plan:
        return self.stage.plan

    async def boots(self) -> None:
        """It says hello for the first time, or again; what it was at when it went down it knows nothing of any more."""
        self.up = True
        self._befall(self._plan.mishaps.deaths_an_hour, self.dies)
        self._befall(self._plan.mishaps.reboots_an_hour, self.reboots)
        epoch, lease = self._memory
        answer = await self.stage.machine(self.role, "hello", epoch, lease)
        if lease and answer in (f"{lease} {epoch} {status}" for status in ("claimed", "active")):
            await self.stage.machine(self.role, "unknown", epoch, lease)

    def _befall(self, an_hour: float, act: Callable[[], Awaitable[None]]) -> None:
        life = self._life

        async def once() -> None:
            if self.up and self._life == life:
                await act()

        if an_hour:
            self.stage.later(self.chance.expovariate(an_hour / 100 / 3600), once)

    async def dies(self) -> None:
        """Nothing is heard of it until it is repaired."""
        self._goes_down()
        self.stage.later(REPAIR_SECONDS, self.boots)

    async def reboots(self) -> None:
        """It is back as soon as it has booted."""
        self._goes_down()
        self.stage.later(self._plan.boot(self.chance), self.boots)

    def _goes_down(self) -> None:
        self.up = False
        self._life += 1
        self._begun.clear()

    async def is_unwell(self) -> None:
        """It says so; an admin returns it."""
        if self.up:
            await self.stage.machine(self.role, "unhealthy", self._memory[0], why="its disk is full")

    def obey(self, order: Order) -> None:
        """Begin what it is told, unless it has."""
        if self.up and order not in self._begun:
            self._begun.add(order)
            if order.what == "claim":
                self._soon(CLAIM_SECONDS * self.slowness, order, self._claims)
            else:
                self._soon(min(LONGEST_WIPE, WIPE_SECONDS * self.slowness), order, self._wipes)

    def _soon(self, seconds: float, order: Order, act: Callable[[Order], Awaitable[None]]) -> None:
        life = self._life

        async def unless_it_went_down() -> None:
            if self._life == life:
                await act(order)

        self.stage.later(seconds, unless_it_went_down)

    async def _claims(self, order: Order) -> None:
        if await self.stage.machine(self.role, "claim", order.epoch) == "refused":
            return
        self._memory = (order.epoch, order.lease)
        if self.chance.uniform(0, 100) < self._plan.mishaps.failing:
            await self.stage.machine(self.role, "failed", order.epoch, order.lease, "code-used")
        elif await self._says("started", order) == "claimed":
            self._soon(DESKTOP_SECONDS, order, self._desktop_is_there)

    async def _desktop_is_there(self, order: Order) -> None:
        await self._says("exited", order)

    async def _says(self, outcome: str, order: Order) -> str:
        status = await self.stage.machine(self.role, outcome, order.epoch, order.lease)
        if status == "active":
            self.active(order.lease)
        return status

    async def _wipes(self, order: Order) -> None:
        if await self.stage.machine(self.role, "cleaned", order.epoch) != "refused":
            self._memory = (order.epoch, None)

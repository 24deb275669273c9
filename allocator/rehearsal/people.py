"""What the people of a rehearsal do."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from allocator.rehearsal.plan import Plan
from allocator.rehearsal.stage import Stage

LINE_SECONDS = 90.0
"""How long half of them take to fetch a fresh line and paste it."""

AGAIN_SECONDS = 5.0
"""After how long somebody asks again whom no allocator answered."""

BEFORE_THE_END = 60.0


def address(number: int) -> str:
    """The e-mail address of whoever comes as so many."""
    return f"person-{number}@example.org"


@dataclass(slots=True)
class Person:
    """Comes, asks, uses a machine and goes. `lease` is what they were given."""

    stage: Stage
    number: int
    came: "Callable[[Person], None]"
    """Is told once they have a lease."""
    lease: str | None = None
    chance: random.Random = field(init=False)
    _kind: str = "job"
    _uses: bool = False
    _asked_for_line: int = -1
    """The epoch at which they were asked last."""

    def __post_init__(self) -> None:
        self.chance = self.stage.chance(f"person {self.number}")
        if self._likely(self._plan.habits.desktops):
            self._kind = self.chance.choice(("desktop", "reserve"))

    @property
    def _plan(self) -> Plan:
        return self.stage.plan

    def _likely(self, of_a_hundred: float) -> bool:
        return self.chance.uniform(0, 100) < of_a_hundred

    async def comes(self) -> None:
        """Asks for a machine; some do not wait for it for ever."""
        if self.stage.away:
            return self.stage.later(AGAIN_SECONDS, self.comes)
        self.lease = await self.stage.person(self._kind, address(self.number))
        self.came(self)
        if self._likely(self._plan.habits.leaving):
            self._later(self.chance.expovariate(1 / self._plan.use_seconds), "leave")
        return None

    def _later(self, seconds: float, verb: str) -> None:
        """Do that then, or as soon as an allocator answers."""

        async def act() -> None:
            if self.stage.away:
                self.stage.later(AGAIN_SECONDS, act)
            else:
                await self.stage.person(verb, lease=self.lease)

        self.stage.later(seconds, act)

    def is_asked_for_line(self, epoch: int) -> None:
        """Fetches one, or does not."""
        if self._asked_for_line != epoch:
            self._asked_for_line = epoch
            if not self._likely(self._plan.habits.lineless):
                self._later(self.chance.lognormvariate(0, 0.5) * LINE_SECONDS, "line")

    def begins(self) -> None:
        """Uses the machine for a while, or the next one if it is lost."""
        if self._uses:
            return
        self._uses = True
        use = self._plan.use(self.chance)
        if not self._likely(self._plan.habits.forgetting):
            self._later(use, "end")
        if self._likely(self._plan.habits.extending):
            for step in range(self._plan.steps_needed(use)):
                self._later(self._plan.lease_seconds + step * self._plan.extend_seconds - BEFORE_THE_END, "extend")

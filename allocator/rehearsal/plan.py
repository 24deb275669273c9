"""What comes to a rehearsal, and what goes wrong in it."""

import math
import random
from dataclasses import dataclass, field

SPREAD = 0.5
"""How far times of use spread: a third of them are longer than 1.6 or shorter than 0.6 times the usual one."""


@dataclass(frozen=True, slots=True)
class Mishaps:
    """What goes wrong with machines, and with the allocator. Shares are of a hundred."""

    deaths_an_hour: float = 0
    """Of a hundred machines so many fall silent in an hour, and boot again ten minutes later."""
    reboots_an_hour: float = 0
    """So many boot again at once, and remember whom they were lent to."""
    failing: float = 0
    """Of a hundred commands so many do not work; a desktop's code was used then."""
    slow: float = 0
    """Of a hundred machines so many take ten to four hundred times as long to claim and to wipe."""
    unhealthy: float = 0
    """Of a hundred machines so many say together that they are not well; an admin comes by every ten minutes."""
    away_seconds: float = 0
    """For so long the allocator is away, from when half of the people are there: it neither accepts nor sweeps."""


@dataclass(frozen=True, slots=True)
class Habits:
    """What people do beside asking for a machine and handing it back. Shares are of a hundred."""

    desktops: float = 0
    """So many ask for a desktop, every second of them before they have its line; the others for a job."""
    lineless: float = 0
    """Of a hundred who are asked for a line so many never bring it; the others within some minutes."""
    leaving: float = 0
    """So many leave the queue when they have waited too long for them."""
    forgetting: float = 0
    """So many go without handing back: their leases end when their time is up."""
    extending: float = 0
    """So many have their lease made longer when it is about to end and they are not done."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What comes: so many people within so many seconds, on so many machines that boot first. Times are in seconds."""

    people: int
    arrive_seconds: float
    machines: int
    boot_seconds: float
    use_seconds: float
    lease_seconds: int
    extend_seconds: int = 0
    keep_seconds: int = 300
    queue_seconds: int = 86400
    spread: float = SPREAD
    mishaps: Mishaps = field(default_factory=Mishaps)
    habits: Habits = field(default_factory=Habits)
    groups: int = 0
    """Over so many groups people are spread, the second half as large as the first, the third a third, and so on."""
    known: bool = False
    """Whether earlier workshops are remembered, of which forecasts are made."""
    uses: tuple[float, ...] = ()
    """How long leases lasted in truth, which is better than to guess it from `use_seconds`."""
    boots: tuple[float, ...] = ()
    """The same of boots."""
    tick_seconds: float = 10.0
    """How often machines say hello and the service sweeps."""
    seed: int = 1

    def group(self, chance: random.Random) -> int:
        """Of which group somebody is, counted from 1."""
        numbers = range(1, self.groups + 1)
        return chance.choices(numbers, [1 / number for number in numbers])[0]

    def use(self, chance: random.Random) -> float:
        """For how long somebody uses a machine."""
        return chance.choice(self.uses) if self.uses else chance.lognormvariate(0, self.spread) * self.use_seconds

    def boot(self, chance: random.Random) -> float:
        """For how long a machine boots."""
        return chance.choice(self.boots) if self.boots else chance.uniform(0.7, 1.3) * self.boot_seconds

    def lasts(self, chance: random.Random) -> float:
        """For how long somebody has a lease: they may forget to hand back, and may have it made longer."""
        use, habits = self.use(chance), self.habits
        extended = chance.uniform(0, 100) < habits.extending
        longest = self.lease_seconds + (self.steps_needed(use) * self.extend_seconds if extended else 0)
        use = math.inf if chance.uniform(0, 100) < habits.forgetting else use
        begun = 100 if chance.uniform(0, 100) < habits.desktops / 2 else 10 if habits.desktops else 0
        return min(longest, begun + use)

    def steps_needed(self, use: float) -> int:
        """How many times a lease has to be made longer for somebody who uses its machine so long; twice is allowed."""
        if use <= self.lease_seconds or not self.extend_seconds:
            return 0
        return min(2, math.ceil((use - self.lease_seconds) / self.extend_seconds))

    @property
    def longest_seconds(self) -> float:
        """When all must be over: had everybody all the time there is, lost five machines, and brought no line then."""
        turns = 1 + self.people / self.machines
        a_turn = self.lease_seconds + 2 * self.extend_seconds + self.keep_seconds + 600
        begun = self.arrive_seconds + self.mishaps.away_seconds + 2 * self.boot_seconds + 1200
        return begun + 3 * turns * a_turn + self.queue_seconds

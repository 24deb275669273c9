"""One rehearsal from beginning to end: machines boot, people come, the service does its duties."""

from collections.abc import Callable
from dataclasses import dataclass, field

from allocator import migrate
from allocator.rehearsal.machines import Machine
from allocator.rehearsal.outcome import Course, Moment, Rehearsed, outcome
from allocator.rehearsal.people import Person, address
from allocator.rehearsal.plan import Plan
from allocator.rehearsal.stage import GROUPS, MACHINE, MEMBER, POOL, Order, Stage, staged
from client.network import Connection

SAFETY = "^I"
"""The rules that hold at every moment; those of what happens in time wait for an allocator that is away."""

ROUND_SECONDS = 600.0
"""How often an admin returns machines that failed by themselves."""

IDLE_SECONDS = 15.0
"""How often machines are heard while nobody waits: so often that they count as fresh."""

Progress = Callable[[float, int], None]
"""Is told how many seconds have gone by, and how many people are done."""


def say_nothing(seconds: float, done: int) -> None:
    """Nobody watches."""


@dataclass(slots=True)
class Play:
    """Everybody who takes part, and the course that it takes."""

    stage: Stage
    watch: Progress
    strict: bool = False
    """Whether every rule is looked at at every tick, which takes long."""
    machines: dict[str, Machine] = field(default_factory=dict)
    people: dict[str, Person] = field(default_factory=dict)
    course: Course = field(default_factory=Course)
    _back_at: float = 0.0

    def prepare(self) -> None:
        """Everything that is known to happen is to happen then."""
        plan, stage, chance = self.stage.plan, self.stage, self.stage.chance("all")
        stage.follow = self.follow
        for role in roles(plan):
            self.machines[role] = Machine(stage, role, lambda lease: self.people[lease].begins())
        for number in range(plan.people):
            stage.later(chance.uniform(0, plan.arrive_seconds), Person(stage, number, self._came).comes)
        middle = plan.arrive_seconds / 2
        if plan.mishaps.away_seconds:
            stage.later(middle, self._leaves)
        if plan.mishaps.unhealthy:
            stage.later(plan.boot_seconds + chance.uniform(0, 2 * plan.use_seconds), self._many_are_unwell)
        stage.later(plan.tick_seconds, self.tick)
        stage.later(ROUND_SECONDS, self._admin_comes_by)

    def _came(self, person: Person) -> None:
        assert person.lease
        self.people[person.lease] = person

    def follow(self, order: Order) -> None:
        """Whom it concerns begins it."""
        if order.what != "line":
            self.machines[order.role].obey(order)
        elif order.lease in self.people:
            self.people[order.lease].is_asked_for_line(order.epoch)

    async def _leaves(self) -> None:
        self.stage.away = True
        self._back_at = self.stage.now + self.stage.plan.mishaps.away_seconds

    async def _many_are_unwell(self) -> None:
        share = self.stage.plan.mishaps.unhealthy
        for machine in self.machines.values():
            if machine.chance.uniform(0, 100) < share:
                await machine.is_unwell()

    async def _admin_comes_by(self) -> None:
        """Whatever failed is mended by then."""
        await self.stage.person("return")
        self.stage.later(ROUND_SECONDS, self._admin_comes_by)

    async def tick(self) -> None:
        """Machines that are up are heard, and the allocator, if it is there, sweeps."""
        stage = self.stage
        stage.away = stage.now < self._back_at
        heard = [role for role, machine in self.machines.items() if machine.up]
        pool = await stage.tick(heard, not stage.away, self._rules())
        self.course.note(Moment(stage.now, pool["waiting"], pool["lent"], len(heard)), pool["broken"] or ())
        self.watch(stage.now, len(self.people) - pool["live"])
        if stage.now > stage.plan.longest_seconds:
            self.course.broken.append(f"{pool['live']} leases did not end")
            stage.close()
        elif pool["live"] or len(self.people) < stage.plan.people:
            stage.later(
                stage.plan.tick_seconds if pool["waiting"] else max(IDLE_SECONDS, stage.plan.tick_seconds), self.tick
            )
        else:
            stage.close()

    def _rules(self) -> str | None:
        if not self.strict:
            return None
        return SAFETY if self.stage.now < self._back_at + 60 else ""


def roles(plan: Plan) -> list[str]:
    """The machines' names, which are their roles here."""
    return [f"vm-{number}" for number in range(1, plan.machines + 1)]


def members(stage: Stage) -> list[tuple[str, str]]:
    """Who is of which group: everybody, where there are groups."""
    plan = stage.plan
    return [
        (address(number), f"group-{plan.group(stage.chance(f'group of {number}'))}")
        for number in range(plan.people if plan.groups else 0)
    ]


async def play(owner: Connection, plan: Plan, watch: Progress = say_nothing, strict: bool = False) -> Rehearsed:
    """Play the plan in a database that `staged` opened."""
    await owner.execute(POOL, plan.lease_seconds, plan.keep_seconds, plan.extend_seconds, plan.queue_seconds)
    await owner.executemany("INSERT INTO vm_roles (role) VALUES ($1)", [(role,) for role in roles(plan)])
    await owner.executemany(MACHINE, [(role,) for role in roles(plan)])
    await owner.execute(GROUPS, plan.groups)
    stage = Stage(owner, plan)
    await owner.executemany(MEMBER, members(stage))
    if plan.known:
        chance = stage.chance("before")
        uses = [plan.lasts(chance) for _ in range(300)]
        boots = [plan.boot(chance) for _ in range(200)]
        await owner.execute("SELECT rehearsal_history($1, $2)", uses, boots)
    whole = Play(stage, watch, strict)
    whole.prepare()
    await stage.play()
    return await outcome(owner, plan, whole.course)


async def rehearse(dsn: str, plan: Plan, watch: Progress = say_nothing) -> Rehearsed:
    """Play the plan in the empty database at `dsn`."""
    await migrate.upgrade(dsn)
    async with staged(dsn) as owner:
        return await play(owner, plan, watch)

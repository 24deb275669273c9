"""What is done with a fleet: planned, and made to be as the record wants it, without taking anybody's machine."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field

import asyncpg

from allocator.fleet import adoption, limits, record
from allocator.fleet.description import Fleet
from allocator.fleet.invite import invite
from allocator.fleet.reconcile import settle_gone
from allocator.fleet.record import opened
from allocator.fleet.refusals import FleetError, InUse, NotOfFleet
from allocator.fleet.terraform import Change, Plan, Step, Terraform
from allocator.operations import Connect, Operation

MACHINE = "aws_instance"


@dataclass(frozen=True, slots=True)
class Changes:
    """What a plan does to machines, by hostname; `others` counts what it does to their roles and secrets."""

    make: list[str] = field(default_factory=list)
    replace: list[str] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)
    change: list[str] = field(default_factory=list)
    others: int = 0

    @classmethod
    def of(cls, plan: Plan) -> "Changes":
        """The changes of a plan."""
        machines = [each for each in plan.changes if each.kind == MACHINE]
        return cls(
            make=_named(machines, "create"),
            replace=_named(machines, "replace"),
            remove=_named(machines, "delete", "remove"),
            change=_named(machines, "update"),
            others=sum(each.kind != MACHINE and each.action != "noop" for each in plan.changes),
        )


@dataclass(slots=True)
class Run:
    """One operation on a fleet, with what it needs."""

    fleet: Fleet
    connect: Connect
    operation: Operation
    terraform: Terraform = field(init=False)

    def __post_init__(self) -> None:
        self.terraform = self.fleet.terraform()

    async def look(self, *, replace: Sequence[str] = (), everything_goes: bool = False) -> Plan:
        """The plan that makes the fleet what is wanted. Nothing is changed. Raises FleetError.

        What a killed run made and could not write down is in it, to be taken over.
        """
        await self.operation.progress(0, None, "reading the state")
        await self.terraform.init(self.fleet.backend)
        async with opened(self.connect) as connection:
            vms = {} if everything_goes else await record.wanted(connection)
            tidy = await record.ended_well(connection)
        for hostname in replace:
            if hostname not in vms:
                raise NotOfFleet(hostname)
        left = {} if tidy else await adoption.left_over(self.fleet, await self.terraform.state(), vms)
        self.terraform.adopt(left)
        await self.operation.progress(0, None, "planning")
        addresses = [adoption.INSTANCE.format(hostname) for hostname in replace]
        return await self.terraform.plan(self.fleet.variables(vms), replace=addresses)

    async def apply(self, *, replace: Sequence[str] = (), everything_goes: bool = False) -> Changes:
        """Make the fleet what is wanted. Raises FleetError; InUse when that would take somebody's machine.

        Whatever becomes of it, what was made is written down and invited, so that saying the same again goes on.
        """
        async with opened(self.connect) as connection:
            await settle_gone(self.fleet, connection)
        plan = await self.look(replace=replace, everything_goes=everything_goes)
        changes = Changes.of(plan)
        await limits.check(self.fleet.cloud, await self._types(changes.make))
        await self._take(changes, everything_goes)
        try:
            await self.terraform.apply(plan, self._tell)
        except BaseException:
            with suppress(FleetError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await self._settle()
            raise
        invited = await self._settle()
        self.operation.result = asdict(changes) | {"invited": invited}
        return changes

    async def _types(self, hostnames: Sequence[str]) -> list[str]:
        """The type that each of these machines will have."""
        async with opened(self.connect) as connection:
            wanted = await record.wanted(connection) if hostnames else {}
        return [str(wanted.get(each, {}).get("instance_type", self.fleet.default_type)) for each in hostnames]

    async def _take(self, changes: Changes, everything_goes: bool) -> None:
        """Retire what goes, under the lock that whoever lends a machine takes. Raises InUse, and nothing has changed.

        A machine that is made although the record has it already is one that nobody sees any more.
        """
        async with opened(self.connect) as connection:
            recorded = {row["hostname"] for row in await record.status(connection) if row["instance_id"]}
            going = {*changes.replace, *changes.remove, *(recorded & {*changes.make})}
            held = await record.retire(connection, sorted(going))
            if held:
                people = await record.held(connection, held)
                raise InUse(held, [each.words for each in people])
            if everything_goes:
                await record.leave(connection, [*await record.wanted(connection)])

    async def _settle(self) -> list[str]:
        """Write down what there is now, and invite what is new; returns whom."""
        state = await self.terraform.state()
        async with opened(self.connect) as connection:
            gone = await record.unwanted(connection)
            if gone and not await record.ended_well(connection) and not await record.retire(connection, gone):
                await adoption.remove(self.fleet, state, gone)
            pending = await record.made(connection, adoption.instances_in(state))
            return await invite(self.fleet, connection, pending, self.operation.progress)

    async def _tell(self, step: Step) -> None:
        await self.operation.progress(step.done, step.total, f"{step.action}: {_short(step.address)}")


def _named(changes: Sequence[Change], *actions: str) -> list[str]:
    return [str(each.key) for each in changes if each.action in actions]


def _short(address: str) -> str:
    return address.removeprefix("module.fleet.")

"""Everybody at once, each on a connection of their own, until every verb went through often enough."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from tests.sql.steps import (
    Machine,
    ask,
    connections,
    machines,
)
from tests.support.database import Database

PEOPLE = [f"u{number}@example.org" for number in range(8)]
HAND_WRITTEN = [
    "UPDATE vms SET status = 'available', email = NULL, crd_command = NULL, updated_at = NOW() WHERE hostname = $1",
    "UPDATE vms SET status = 'failed', updated_at = NOW() WHERE hostname = $1",
    "UPDATE vms SET status = 'in-use' WHERE hostname = $1",
    "UPDATE vms SET status = 'in-use', email = 'u1@example.org', crd_command = 'python train.py' WHERE hostname = $1",
    "UPDATE vms SET status = 'available' WHERE hostname <> $1",
    "UPDATE leases SET status = 'cancelled' WHERE status IN ('queued', 'assigned', 'claimed') AND hostname = $1",
    "UPDATE leases SET status = 'ended' WHERE status = 'active' AND hostname = $1",
    "UPDATE leases SET status = 'cancelled' WHERE status = 'queued' AND $1 <> ''",
    "UPDATE leases SET status = 'queued' WHERE status IN ('assigned', 'claimed', 'active') AND hostname = $1",
    "UPDATE leases SET expires_at = clock() WHERE status = 'active' AND hostname = $1",
    "UPDATE leases SET deadline = clock() WHERE status IN ('assigned', 'claimed') AND hostname = $1",
    "UPDATE vms SET draining = NOT draining WHERE hostname = $1",
]
RENEWED = "SELECT renew_line($1, '{}', '{\"code\": \"x\"}', 'start-host')"
SWEEPS = ["sweep_lost(1e6)", "sweep_deadlines()", "sweep_queue()", "sweep_secrets()", "sweep_roles()"]
SWEEPS += ["sweep_forecasts()", "sweep_schedules()", "sweep_idle()"]
RUNS: list[list[tuple[str, int | None, str | None]]] = [
    [("started", None, None), ("exited", 0, None)],
    [("exited", 1, None)],
    [("started", None, None), ("unknown", None, None)],
    [("failed", None, "code-used")],
]
VERBS = ("ask", "end", "release", "fail", "sweep", "hello", "claim", "report", "cleaned")
RARE = ("extend", "renew", "unhealthy", "drain", "scale", "pause")
"""What can seldom be done: a tenth as often is enough."""

LIMIT_SECONDS = 300.0
"""It takes a fraction of a minute where the computer has little else to do."""

OF_MACHINES = ("hello", "claim", "report", "cleaned", "unhealthy")
"""A sweep may cut off a machine that is in the way of whoever is next (wrest_vms); it connects again by itself."""

REFUSALS = {"LL001", "LL002", "LL003", "LL008", "LL012", "LL013", "40001", "55P03"}
"""What may be answered instead. 55P03 is the service's limit of two seconds, which admins' deadlocks can use up."""


@dataclass
class Storm:
    """Everybody at once, each on a connection of their own, and what came of it."""

    machines: list[Machine]
    rounds: int
    done: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    deadlocks: Counter[str] = field(default_factory=Counter)

    @property
    def is_over(self) -> bool:
        """Every verb went through `rounds` times."""
        rare = min(self.done[name] for name in RARE)
        return min(10 * rare, *(self.done[name] for name in VERBS)) >= self.rounds

    def hostname(self, chance: random.Random) -> str:
        return chance.choice(self.machines).hostname

    async def call(self, name: str, call: Awaitable[Any]) -> Any:
        """The call's answer, or None when it was refused as it may be."""
        try:
            answer = await call
        except (asyncpg.ConnectionDoesNotExistError, asyncpg.InterfaceError):
            if name not in OF_MACHINES:
                raise
            self.refusals["cut off"] += 1
            return None
        except asyncpg.PostgresError as refusal:
            sqlstate = str(refusal.sqlstate)
            if sqlstate == "40P01":
                self.deadlocks[name] += 1
            elif sqlstate not in REFUSALS:
                raise
            self.refusals[sqlstate] += 1
            self.done[name] += sqlstate == "LL012"  # nearly always somebody waits: it was looked at all the same
            return None
        self.done[name] += 1
        return answer

    async def asks(self, service: asyncpg.Connection, chance: random.Random) -> None:
        argv = chance.choice([None, ["echo"]])
        await self.call("ask", ask(service, chance.choice(PEOPLE), argv=argv))

    async def extends(self, service: asyncpg.Connection, chance: random.Random) -> None:
        active = await service.fetch("SELECT id FROM lease_views WHERE status = 'active'")
        if active:
            await self.call("extend", service.execute("SELECT extend_lease($1)", chance.choice(active)["id"]))

    async def renews(self, service: asyncpg.Connection, chance: random.Random) -> None:
        asked = await service.fetch("SELECT id FROM lease_views WHERE needs_line AND status IN ('queued', 'assigned')")
        if asked:
            renewed = service.execute(RENEWED, chance.choice(asked)["id"])
            await self.call("renew", renewed)

    async def hands_back(self, service: asyncpg.Connection, chance: random.Random) -> None:
        latest = await service.fetch("SELECT id FROM lease_views ORDER BY created_at DESC LIMIT 6")
        if latest:
            await self.call("end", service.execute("SELECT end_lease($1)", chance.choice(latest)["id"]))

    async def releases(self, owner: asyncpg.Connection, chance: random.Random) -> None:
        await self.call("release", owner.execute("SELECT release_vm($1)", self.hostname(chance)))

    async def fails(self, owner: asyncpg.Connection, chance: random.Random) -> None:
        verb = chance.choice(["fail_vm($1, 'test')", "return_vm($1)", "return_vm($1)"])
        await self.call("fail", owner.execute(f"SELECT {verb}", self.hostname(chance)))

    async def drains(self, owner: asyncpg.Connection, chance: random.Random) -> None:
        """Or takes a machine back that was drained; and a pool that rests because many failed has done so for long."""
        draining = "UPDATE vms SET draining = NOT draining WHERE hostname = $1"
        await self.call("drain", owner.execute(draining, self.hostname(chance)))
        await self.call("rest", owner.execute("UPDATE pools SET rests_until = NULL WHERE rests_until IS NOT NULL"))

    async def scales(self, owner: asyncpg.Connection, chance: random.Random) -> None:
        """Idle machines are taken out, and lent again when somebody waits."""
        own = [vm.hostname for vm in self.machines]
        await self.call("scale", owner.execute("SELECT * FROM scale('default', $1)", own))

    async def pauses(self, owner: asyncpg.Connection, chance: random.Random) -> None:
        """For a moment; whatever keeps it from going on, it does with the next one."""
        for paused in (True, False):
            await self.call("pause", owner.execute("SELECT pause_pool('default', $1)", paused))

    async def sweeps(self, service: asyncpg.Connection, chance: random.Random) -> None:
        await self.call("sweep", service.execute(f"SELECT {chance.choice(SWEEPS)}"))

    async def writes_by_hand(self, owner: asyncpg.Connection, chance: random.Random) -> None:
        await self.call("by hand", owner.execute(chance.choice(HAND_WRITTEN), self.hostname(chance)))

    async def lives(self, vm: Machine, chance: random.Random) -> None:
        """One turn of a machine: does what hello says, though by then it may no longer be true."""
        orders = await self.greets(vm)
        if orders and orders["status"] == "cleaning":
            await self.call("cleaned", vm.cleaned(orders["epoch"]))
        elif orders and chance.random() < 0.02:
            await self.call("unhealthy", vm.unhealthy(orders["epoch"], "no GPU"))
        elif orders and orders["lease_status"] in ("assigned", "claimed") and orders["kind"] != "hold":
            await self.runs(vm, orders["epoch"], chance)

    async def greets(self, vm: Machine) -> asyncpg.Record | None:
        """What a machine is told, which connects again if it was cut off; None if it is cut off meanwhile."""
        if vm.connection.is_closed():
            vm.connection = await vm.vm.connect()
        orders: asyncpg.Record | None = await self.call("hello", vm.hello(None))
        return orders

    async def runs(self, vm: Machine, epoch: int, chance: random.Random) -> None:
        assignment = await self.call("claim", vm.claim(epoch))
        if assignment:
            for outcome, code, failure in chance.choice(RUNS):
                report = vm.report(assignment["lease_id"], epoch, outcome, code, failure=failure, kind="job")
                await self.call("report", report)

    async def settle(self, owner: asyncpg.Connection) -> None:
        """Brings every machine back, one after the other, so that nothing is left to do."""
        await owner.execute("UPDATE pools SET rests_until = NULL, paused = false")
        for vm in self.machines:
            await owner.execute("SELECT return_vm($1)", vm.hostname)
            orders = None
            while orders is None:
                orders = await self.greets(vm)
            if orders["status"] == "cleaning":
                await vm.cleaned(orders["epoch"])
        await owner.execute("SELECT sweep_queue()")


Deed = Callable[[Any, random.Random], Awaitable[None]]


async def repeat(ours: Storm, deed: Deed, who: Any, how_often: float, seed: int) -> None:
    """Does the deed again and again until the storm is over, in `how_often` of all turns."""
    chance = random.Random(seed)
    while not ours.is_over:
        if chance.random() < how_often:
            await deed(who, chance)
        else:
            await asyncio.sleep(0)


async def storm(database: Database, rounds: int, by_hand: int) -> Storm:
    """Everybody at once until each verb went through `rounds` times; `by_hand` admins write statements of their own."""
    if by_hand:  # who blocks each other all others wait for
        superuser = await database.connect("postgres")
        await superuser.execute(f"ALTER DATABASE {database.name} SET deadlock_timeout = '100ms'")
    ours = Storm(await machines(database, 5), rounds)
    owner = await database.connect("lablink")
    await owner.execute("SELECT ensure_pool('default', true, ARRAY['echo', 'python'], 3600, 90, 3600)")
    await owner.execute("UPDATE pools SET restart_on_move = true, extend_seconds = 1")
    await owner.execute("UPDATE pools SET max_machines = 5, spare_machines = 0, shrink_after_seconds = 0")
    often: list[Deed] = [ours.asks, ours.asks, ours.asks, ours.sweeps, ours.sweeps, ours.extends, ours.renews]
    of_admins: list[Deed] = [ours.releases, ours.fails, ours.drains, ours.scales, ours.pauses]
    of_admins += [ours.writes_by_hand] * by_hand
    callers = await connections(database, len(often) + 1)
    admins = await connections(database, len(of_admins), "lablink")
    parts: list[tuple[Deed, Any, float]] = [(deed, callers.pop(), 1) for deed in often]
    parts += [(ours.hands_back, callers.pop(), 0.2)]
    parts += [(deed, admins.pop(), 0.2) for deed in of_admins]
    parts += [(ours.lives, vm, 1) for vm in ours.machines]
    async with asyncio.timeout(LIMIT_SECONDS):
        await asyncio.gather(*(repeat(ours, *part, seed) for seed, part in enumerate(parts)))
    return ours

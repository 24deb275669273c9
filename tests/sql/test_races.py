"""Many at once on real connections: nobody shares a machine, nobody is forgotten, every lease ends up consistent."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from tests.sql.promises import broken, facts
from tests.sql.steps import ADA, Machine, ask, lease_of, machine, refused, row_of
from tests.support.database import Database

MANY = 50


async def connections(database: Database, number: int, role: str = "lablink_app") -> list[asyncpg.Connection]:
    return list(await asyncio.gather(*(database.connect(role) for _ in range(number))))


async def machines(database: Database, number: int) -> list[Machine]:
    return [await machine(database, f"vm-{n}") for n in range(1, number + 1)]


async def waits_for_a_lock(owner: asyncpg.Connection, waiting: asyncpg.Connection) -> None:
    """Returns once the backend of `waiting` is blocked by another one."""
    async with asyncio.timeout(10):
        while not await owner.fetchval("SELECT cardinality(pg_blocking_pids($1))", waiting.get_server_pid()):
            pass


# requests


async def test_fifty_people_who_ask_at_once_get_fifty_different_machines(
    database: Database, owner: asyncpg.Connection
) -> None:
    for number in range(MANY):
        await database.vm(f"vm-{number}")
    people = await connections(database, MANY)

    answers = await asyncio.gather(*(ask(person, f"u{n}@example.org") for n, person in enumerate(people)))

    leases = await owner.fetch("SELECT DISTINCT vm_id FROM leases WHERE status = 'assigned'")
    assert {answer["outcome"] for answer in answers} == {"created"}
    assert len(leases) == MANY


async def test_of_fifty_who_ask_for_twenty_machines_thirty_wait_in_line(
    database: Database, owner: asyncpg.Connection
) -> None:
    for number in range(20):
        await database.vm(f"vm-{number}")
    people = await connections(database, MANY)

    await asyncio.gather(*(ask(person, f"u{n}@example.org") for n, person in enumerate(people)))

    waiting = await owner.fetch(
        "SELECT position FROM lease_views v JOIN leases USING (id) WHERE v.status = 'queued' ORDER BY place"
    )
    served = await owner.fetchval("SELECT count(DISTINCT vm_id) FROM leases WHERE status = 'assigned'")
    assert served == 20
    assert [row["position"] for row in waiting] == list(range(1, 31))


async def test_twenty_requests_of_one_person_at_once_are_one_lease(
    database: Database, owner: asyncpg.Connection
) -> None:
    await database.vm("vm-1")
    people = await connections(database, 20)

    answers = await asyncio.gather(*(ask(person, ADA) for person in people))

    assert len({answer["lease_id"] for answer in answers}) == 1
    assert Counter(answer["outcome"] for answer in answers) == {"created": 1, "live": 19}
    assert await owner.fetchval("SELECT count(*) FROM leases") == 1


async def test_one_request_that_is_sent_twenty_times_at_once_is_one_lease(
    database: Database, owner: asyncpg.Connection
) -> None:
    await database.vm("vm-1")
    people = await connections(database, 20)

    answers = await asyncio.gather(*(ask(person, ADA, key="k") for person in people))

    assert len({answer["lease_id"] for answer in answers}) == 1
    assert Counter(answer["outcome"] for answer in answers) == {"created": 1, "repeated": 19}


async def test_thirty_machines_that_come_free_at_once_serve_thirty_who_wait(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    fleet = await machines(database, 30)
    await owner.execute("UPDATE vms SET status = 'cleaning'")
    for number in range(MANY):
        await ask(service, f"u{number}@example.org")

    await asyncio.gather(*(vm.cleaned(1) for vm in fleet))
    await service.execute("SELECT sweep_queue()")

    served = await owner.fetch("SELECT vm_id FROM leases WHERE status = 'assigned' ORDER BY place")
    assert len({row["vm_id"] for row in served}) == 30
    assert await owner.fetchval("SELECT max(place) FROM leases WHERE status = 'assigned'") == await owner.fetchval(
        "SELECT min(place) - 1 FROM leases WHERE status = 'queued'"
    )


async def test_a_request_and_a_wipe_that_did_not_see_each_other_meet_at_the_next_sweep(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await owner.execute("UPDATE vms SET status = 'cleaning'")
    async with service.transaction():
        await ask(service)
        await vm.cleaned(1)

    assert await service.fetchval("SELECT sweep_queue()") == 1

    assert (await row_of(owner))["email"] == ADA


# two at a time, in a given order


async def test_who_ends_a_lease_while_it_gets_a_machine_tries_again_instead_of_waiting_for_each_other(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await database.vm("vm-1")
    await database.age(vm, 60)
    lease = (await ask(service))["lease_id"]
    admin = await database.connect("lablink")
    async with admin.transaction():
        await admin.execute("UPDATE vms SET status = 'in-use', lease_id = $1", lease)
        ending = asyncio.create_task(service.fetchval("SELECT end_lease($1)", lease))
        await waits_for_a_lock(owner, service)

    with refused("40001"):
        await ending
    assert await service.fetchval("SELECT end_lease($1)", lease) == "cancelled"


async def test_a_lease_that_ends_before_the_claim_commits_is_cancelled_and_its_report_is_stale(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    lease = (await ask(service))["lease_id"]
    async with vm.connection.transaction():
        await vm.claim(1)
        ending = asyncio.create_task(service.fetchval("SELECT end_lease($1)", lease))
        await waits_for_a_lock(owner, service)

    assert await ending == "cancelled"
    with refused("LL001"):
        await vm.report(lease, 1, "started")


async def test_a_report_that_waits_for_the_end_of_its_lease_is_stale(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    lease = (await ask(service))["lease_id"]
    await vm.claim(1)
    async with service.transaction():
        await service.execute("SELECT release_vm('vm-1')")
        reporting = asyncio.create_task(vm.report(lease, 1, "exited", 0))
        await waits_for_a_lock(owner, vm.connection)

    with refused("LL001"):
        await reporting
    assert (await lease_of(owner, lease))["status"] == "cancelled"


async def test_a_machine_that_fails_while_it_is_being_lent_is_not_lent(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await database.vm("vm-1")
    async with owner.transaction():
        await owner.execute("UPDATE vms SET status = 'failed'")
        answer = await ask(service)

    assert (await lease_of(owner, answer["lease_id"]))["status"] == "queued"
    assert (await row_of(owner))["status"] == "failed"


async def test_a_hello_that_waits_for_the_sweep_does_not_bring_a_lost_machine_back_unwiped(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    lease = (await ask(service))["lease_id"]
    await database.age(vm.vm, 100)
    await database.let_pass(3600)
    await owner.execute("UPDATE vm_heartbeats SET seen_at = clock() - interval '100 seconds'")
    async with service.transaction():
        assert await service.fetchval("SELECT sweep_lost(3600)") == 1
        greeting = asyncio.create_task(vm.hello(1, lease))
        await waits_for_a_lock(owner, vm.connection)
    orders = await greeting

    assert orders["status"] == "failed"
    assert (await vm.hello(1, lease))["status"] == "cleaning"


async def test_a_transaction_that_sees_an_older_database_cannot_break_a_rule(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await database.vm("vm-1")
    admin = await database.connect("lablink")

    await admin.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await admin.fetch("SELECT * FROM vms")
    await ask(service)
    with pytest.raises(asyncpg.SerializationError):
        await admin.execute("UPDATE vms SET status = 'failed'")
    await admin.execute("ROLLBACK")

    assert (await row_of(owner))["email"] == ADA


# everybody against everybody


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
]
SWEEPS = ["sweep_lost(1e6)", "sweep_deadlines()", "sweep_queue()", "sweep_secrets()", "sweep_roles()"]
RUNS: list[list[tuple[str, int | None]]] = [[("started", None), ("exited", 0)], [("exited", 1)], [("unknown", None)]]
VERBS = ("ask", "end", "release", "fail", "sweep", "hello", "claim", "report", "cleaned")
REFUSALS = {"LL001", "LL002", "LL003", "LL008", "40001"}


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
        return min(self.done[name] for name in VERBS) >= self.rounds

    def hostname(self, chance: random.Random) -> str:
        return chance.choice(self.machines).hostname

    async def call(self, name: str, call: Awaitable[Any]) -> Any:
        """The call's answer, or None when it was refused as it may be."""
        try:
            answer = await call
        except asyncpg.PostgresError as refusal:
            sqlstate = str(refusal.sqlstate)
            if sqlstate == "40P01":
                self.deadlocks[name] += 1
            elif sqlstate not in REFUSALS:
                raise
            self.refusals[sqlstate] += 1
            return None
        self.done[name] += 1
        return answer

    async def asks(self, service: asyncpg.Connection, chance: random.Random) -> None:
        await self.call("ask", ask(service, chance.choice(PEOPLE)))

    async def hands_back(self, service: asyncpg.Connection, chance: random.Random) -> None:
        latest = await service.fetch("SELECT id FROM lease_views ORDER BY created_at DESC LIMIT 6")
        if latest:
            await self.call("end", service.execute("SELECT end_lease($1)", chance.choice(latest)["id"]))

    async def releases(self, service: asyncpg.Connection, chance: random.Random) -> None:
        await self.call("release", service.execute("SELECT release_vm($1)", self.hostname(chance)))

    async def fails(self, service: asyncpg.Connection, chance: random.Random) -> None:
        verb = chance.choice(["fail_vm($1, 'test')", "return_vm($1)", "return_vm($1)"])
        await self.call("fail", service.execute(f"SELECT {verb}", self.hostname(chance)))

    async def sweeps(self, service: asyncpg.Connection, chance: random.Random) -> None:
        await self.call("sweep", service.execute(f"SELECT {chance.choice(SWEEPS)}"))

    async def writes_by_hand(self, owner: asyncpg.Connection, chance: random.Random) -> None:
        await self.call("by hand", owner.execute(chance.choice(HAND_WRITTEN), self.hostname(chance)))

    async def lives(self, vm: Machine, chance: random.Random) -> None:
        """One turn of a machine: does what hello says, though by then it may no longer be true."""
        orders = await self.call("hello", vm.hello(None))
        if orders and orders["status"] == "cleaning":
            await self.call("cleaned", vm.cleaned(orders["epoch"]))
        elif orders and orders["lease_status"] in ("assigned", "claimed"):
            await self.runs(vm, orders["epoch"], chance)

    async def runs(self, vm: Machine, epoch: int, chance: random.Random) -> None:
        assignment = await self.call("claim", vm.claim(epoch))
        if assignment:
            for outcome, code in chance.choice(RUNS):
                await self.call("report", vm.report(assignment["lease_id"], epoch, outcome, code))

    async def settle(self, service: asyncpg.Connection) -> None:
        """Brings every machine back, one after the other, so that nothing is left to do."""
        for vm in self.machines:
            await service.execute("SELECT return_vm($1)", vm.hostname)
            orders = await vm.hello(None)
            if orders["status"] == "cleaning":
                await vm.cleaned(orders["epoch"])
        await service.execute("SELECT sweep_queue()")


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
    ours = Storm(await machines(database, 5), rounds)
    often: list[Deed] = [ours.asks, ours.asks, ours.asks, ours.sweeps, ours.sweeps]
    seldom: list[Deed] = [ours.hands_back, ours.releases, ours.fails]
    callers = await connections(database, len(often) + len(seldom))
    admins = await connections(database, by_hand, "lablink")
    parts: list[tuple[Deed, Any, float]] = [(deed, callers.pop(), 1) for deed in often]
    parts += [(deed, callers.pop(), 0.2) for deed in seldom]
    parts += [(ours.writes_by_hand, admin, 0.2) for admin in admins]
    parts += [(ours.lives, vm, 1) for vm in ours.machines]
    async with asyncio.timeout(60):
        await asyncio.gather(*(repeat(ours, *part, seed) for seed, part in enumerate(parts)))
    return ours


async def nothing_is_broken(owner: asyncpg.Connection) -> bool:
    assert await owner.fetch("SELECT * FROM broken_invariants()") == []
    assert broken(await facts(owner)) == []
    return True


async def test_nothing_breaks_and_nobody_blocks_another_when_everybody_uses_the_functions_at_once(
    database: Database, owner: asyncpg.Connection, record_property: Callable[[str, object], None]
) -> None:
    ours = await storm(database, rounds=200, by_hand=0)

    record_property("done", dict(ours.done))
    record_property("refusals", dict(ours.refusals))
    assert await nothing_is_broken(owner)
    assert ours.deadlocks == {}


async def test_nothing_breaks_when_admins_write_statements_of_their_own_at_the_same_time(
    database: Database, owner: asyncpg.Connection, record_property: Callable[[str, object], None]
) -> None:
    """Whoever changes a lease by hand locks it before its machine, so two may block each other: one tries again."""
    ours = await storm(database, rounds=200, by_hand=2)

    record_property("done", dict(ours.done))
    record_property("deadlocks", dict(ours.deadlocks))
    assert await nothing_is_broken(owner)
    assert sum(ours.deadlocks.values()) < sum(ours.done.values()) / 50


async def test_after_the_storm_no_free_machine_stands_beside_somebody_who_waits(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    ours = await storm(database, rounds=30, by_hand=1)

    await ours.settle(service)

    queued = await owner.fetchval("SELECT count(*) FROM leases WHERE status = 'queued'")
    assert await nothing_is_broken(owner)
    assert min(queued, await service.fetchval("SELECT unassigned_vms_count()")) == 0

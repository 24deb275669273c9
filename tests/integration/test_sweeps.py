"""The periodic duties as the service does them: each by itself, through outages, beside another allocator's."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from allocator.config import Settings
from allocator.connection import Connect, connector
from allocator.errors import DatabaseUnavailable
from allocator.metrics import Metrics
from allocator.sweeps import Sweeper
from allocator.tasks import alongside
from allocator.upkeep.history import Head, broken_history
from client.protocol import CHANNEL
from tests.support import LIMIT_SECONDS
from tests.support.database import Database
from tests.support.service import settings_for
from tests.support.upkeep import ignore
from tests.support.wire import Wire

Connection = asyncpg.Connection
PERIOD_SECONDS = 0.05
LOST_SECONDS = 200.0
SLOW_SECONDS = 60.0
"""The period of a sweeper that is told when to: it takes three of them and no less for a sleep of the computer."""


@pytest.fixture
def settings(database: Database, wire: Wire, tmp_path: Path) -> Settings:
    """Settings whose database is at the other end of the wire."""
    return settings_for(database, tmp_path, wire=wire)


@pytest_asyncio.fixture
async def sweeper(settings: Settings) -> AsyncIterator[Sweeper]:
    """A sweeper that sweeps when it is told to."""
    sweeper = new_sweeper(settings, period=SLOW_SECONDS)
    yield sweeper
    sweeper.close()


def new_sweeper(settings: Settings, connect: Connect | None = None, period: float = PERIOD_SECONDS) -> Sweeper:
    connect = connect or connector(settings.database, "sweep")
    return Sweeper(connect, settings.pool, settings.transport, period, Metrics())


async def queue(owner: Connection, name: str) -> None:
    """Somebody who waits."""
    await owner.execute("INSERT INTO leases (email, kind) VALUES ($1, 'job')", f"{name}@example.org")


async def test_the_pool_becomes_what_the_configuration_says(owner: Connection, sweeper: Sweeper) -> None:
    await sweeper.run_once()

    assert await owner.fetchval("SELECT programs FROM pools WHERE name = 'default'") == ["echo", "sleep", "python3"]
    assert sweeper.in_contact.is_set()


async def test_every_duty_is_done_in_one_round(database: Database, owner: Connection, sweeper: Sweeper) -> None:
    await queue(owner, "late")
    late = await owner.fetchval("SELECT id FROM leases")
    await database.age(late, 90_000)
    await sweeper.run_once()
    await queue(owner, "next")
    machine = await database.vm()
    await owner.execute("UPDATE vms SET status = 'retired'")

    changed = await sweeper.run_once()

    assert await owner.fetchval("SELECT failure FROM leases WHERE id = $1", late) == "queue-timeout"
    assert changed.pop("seal") > 0
    assert changed.pop("roles") == 1
    assert set(changed.values()) == {0}
    assert await owner.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", machine.role) == 0


async def test_the_head_of_the_history_is_logged_now_and_then_as_verify_takes_it(
    owner: Connection, sweeper: Sweeper
) -> None:
    with capture_logs() as told:
        for name in ("ada", "bob"):
            await queue(owner, name)
            await sweeper.run_once()

    (head,) = [said["head"] for said in told if said["event"] == "history.head"]
    assert await broken_history(owner, head=Head.of(head), tell=ignore) == []


async def test_whoever_waits_gets_a_machine_that_nobody_gave_out(
    database: Database, owner: Connection, sweeper: Sweeper
) -> None:
    await database.vm()
    await queue(owner, "ada")

    assert (await sweeper.run_once())["queue"] == 1
    assert await owner.fetchval("SELECT status FROM leases") == "assigned"
    assert await owner.fetchval("SELECT actor FROM events WHERE kind = 'lease.assigned'") == "sweep"


async def test_a_duty_that_fails_does_not_keep_the_others_from_being_done(
    database: Database, owner: Connection, sweeper: Sweeper
) -> None:
    await sweeper.run_once()
    await owner.execute(
        "CREATE OR REPLACE FUNCTION sweep_deadlines() RETURNS integer LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'broken'; END $$"
    )
    await database.vm()
    await queue(owner, "ada")

    changed = await sweeper.run_once()

    assert (changed["deadlines"], changed["queue"]) == (0, 1)


async def test_a_silent_machine_is_not_lost_to_a_sweeper_that_only_just_sees_the_database(
    database: Database, owner: Connection, sweeper: Sweeper
) -> None:
    machine = await database.vm()
    await database.let_pass(LOST_SECONDS)

    assert (await sweeper.run_once())["lost"] == 0
    assert await owner.fetchval("SELECT status FROM vms WHERE id = $1", machine.id) == "available"


async def test_a_silent_machine_is_lost_to_a_sweeper_that_has_seen_the_database_long_enough(
    database: Database, owner: Connection, sweeper: Sweeper
) -> None:
    await database.vm()
    await database.let_pass(LOST_SECONDS)
    await sweeper.run_once()
    sweeper.contact_at -= LOST_SECONDS

    assert (await sweeper.run_once())["lost"] == 1
    assert await owner.fetchval("SELECT reason FROM vms") == "lost"


async def test_an_outage_starts_the_patience_anew(database: Database, wire: Wire, sweeper: Sweeper) -> None:
    await database.vm()
    await database.let_pass(LOST_SECONDS)
    await sweeper.run_once()
    sweeper.contact_at -= LOST_SECONDS
    with wire.down(), pytest.raises(DatabaseUnavailable):
        await sweeper.run_once()

    assert (await sweeper.run_once())["lost"] == 0


async def test_a_computer_that_slept_starts_the_patience_anew(database: Database, sweeper: Sweeper) -> None:
    await database.vm()
    await database.let_pass(LOST_SECONDS)
    await sweeper.run_once()
    sweeper.contact_at -= LOST_SECONDS
    sweeper.swept_at -= LOST_SECONDS

    assert (await sweeper.run_once())["lost"] == 0


async def test_a_running_sweeper_rides_out_an_outage(
    database: Database, owner: Connection, wire: Wire, settings: Settings
) -> None:
    sweeper = new_sweeper(settings)
    async with alongside(sweeper.run()), asyncio.timeout(LIMIT_SECONDS):
        await sweeper.in_contact.wait()
        given = asyncio.Event()
        await owner.add_listener(CHANNEL, lambda *notice: given.set() if "in-use" in notice[-1] else None)
        with wire.down():
            while sweeper.in_contact.is_set():
                await owner.execute("SELECT")
        await sweeper.in_contact.wait()
        await database.vm()
        await queue(owner, "ada")
        await given.wait()


async def test_a_fault_that_nobody_expected_does_not_end_the_sweeping(settings: Settings) -> None:
    connect = connector(settings.database, "sweep")
    faults = iter([RuntimeError("a fault"), RuntimeError("another")])

    async def faulty(*arguments: object, **options: object) -> "asyncpg.Connection[asyncpg.Record]":
        for fault in faults:
            raise fault
        return await connect(*arguments, **options)

    sweeper = new_sweeper(settings, faulty)
    async with alongside(sweeper.run()), asyncio.timeout(LIMIT_SECONDS):
        await sweeper.in_contact.wait()


async def test_two_allocators_sweep_one_database_without_harm(
    database: Database, owner: Connection, settings: Settings
) -> None:
    sweepers = [new_sweeper(settings) for _ in range(2)]
    for number in range(6):
        await database.vm(f"vm-{number}")
    for number in range(6):
        await queue(owner, f"p{number}")

    rounds = [await asyncio.gather(*(sweeper.run_once() for sweeper in sweepers)) for _ in range(3)]

    for sweeper in sweepers:
        sweeper.close()
    assert sum(changed["queue"] for both in rounds for changed in both) == 6
    assert await owner.fetch("SELECT * FROM broken_invariants()") == []

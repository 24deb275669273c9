"""Requests that reach the service together: one statement for all, and whatever is wrong with one is nobody else's."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from allocator import requesting
from allocator.connection import pooled_connector
from allocator.errors import Busy, CommandNotAccepted, Conflict, DatabaseFailed, DatabaseUnavailable, NoSuchPool
from allocator.requesting import ABUNDANCE, MOST, VmRequest
from allocator.store import Store
from allocator.views import Accepted
from client.command import JobCommand
from tests.support import LIMIT_SECONDS
from tests.support.database import Database, free_machines
from tests.support.patience import patient_role
from tests.support.service import settings_for
from tests.support.wire import Wire

MANY = 100
ECHO = "UPDATE pools SET programs = '{echo}'"
SOME_VM = "(SELECT id FROM vms WHERE status = '{}' ORDER BY random() LIMIT 1)"
BY_HAND = (
    f"UPDATE vms SET status = 'in-use', epoch = epoch + 1, lease_id = gen_random_uuid(), email = random() || '@x.org', "
    f"updated_at = clock() WHERE id = {SOME_VM.format('available')}",
    f"UPDATE vms SET status = 'in-use', email = 'u' || (random() * 99)::int || '@example.org' "
    f"WHERE id = {SOME_VM.format('available')}",
    f"UPDATE vms SET status = 'failed' WHERE id = {SOME_VM.format('in-use')}",
    f"UPDATE vms SET status = 'available' WHERE id = {SOME_VM.format('in-use')}",
)
HANDS_BACK = "SELECT end_lease(id) FROM leases WHERE live AND kind <> 'hold' ORDER BY random() LIMIT 1"


def request(email: str, program: str = "echo", pool: str = "default") -> VmRequest:
    """What the service asks for a person who wants to run a program."""
    command = JobCommand((program,))
    return VmRequest(email, command, command, f"token of {email}", b"salt", None, None, pool)


def crowd(number: int) -> list[VmRequest]:
    return [request(f"u{n}@example.org") for n in range(number)]


@pytest_asyncio.fixture
async def owner(database: Database) -> asyncpg.Connection:
    """An admin, whose pool accepts `echo`."""
    connection = await database.connect("lablink")
    await connection.execute(ECHO)
    return connection


@pytest_asyncio.fixture
async def patient(database: Database) -> None:
    """A store waits for a lock as long as somebody has it, also through a pooler."""
    await patient_role(database)


@pytest_asyncio.fixture
async def store(database: Database, owner: asyncpg.Connection, wire: Wire, tmp_path: Path) -> AsyncIterator[Store]:
    """The service's store, its database at the other end of the wire."""
    settings = settings_for(database, tmp_path, wire=wire)
    async with Store.open(pooled_connector(settings.database, "web"), settings.database.connections) as own:
        yield own


async def all_of(store: Store, *requests: VmRequest) -> list[Accepted | BaseException]:
    """What became of requests that came at once."""
    async with asyncio.timeout(LIMIT_SECONDS):
        return await asyncio.gather(*map(store.request_vm, requests), return_exceptions=True)


async def test_people_who_come_together_are_served_by_one_transaction_in_the_order_they_came(
    store: Store, owner: asyncpg.Connection
) -> None:
    answers = await all_of(store, *crowd(MOST))

    rows = await owner.fetch("SELECT id, email, xmin::text FROM leases ORDER BY place")
    assert [answer.lease_id for answer in answers if isinstance(answer, Accepted)] == [row["id"] for row in rows]
    assert [row["email"] for row in rows] == [each.email for each in crowd(MOST)]
    assert len({row["xmin"] for row in rows}) == 1


async def test_what_is_refused_is_refused_to_one(store: Store) -> None:
    *fine, no_command, no_pool = await all_of(
        store, *crowd(5), request("rm@example.org", "rm"), request("gpu@example.org", pool="gpu")
    )

    assert all(isinstance(answer, Accepted) for answer in fine)
    assert isinstance(no_command, CommandNotAccepted)
    assert isinstance(no_pool, NoSuchPool)


async def test_one_whom_the_database_does_not_take_at_all_is_nobody_elses_trouble(store: Store) -> None:
    far_too_long, *others = await all_of(store, request("x" * 300 + "@example.org"), *crowd(MANY))

    assert isinstance(far_too_long, DatabaseFailed)
    assert all(isinstance(answer, Accepted) and answer.outcome == "created" for answer in others)


@pytest.mark.usefixtures("usual_wait_for_locks")
async def test_nobody_waits_for_a_person_whose_lease_somebody_is_changing(
    database: Database, store: Store, owner: asyncpg.Connection
) -> None:
    transaction = owner.transaction()
    await transaction.start()
    await owner.execute("INSERT INTO leases (email, kind) VALUES ('ada@example.org', 'job')")

    in_the_way, *others = await all_of(store, request("ada@example.org"), *crowd(5))
    await transaction.rollback()

    assert isinstance(in_the_way, Busy)
    assert all(isinstance(answer, Accepted) for answer in others)


@pytest.mark.usefixtures("patient")
async def test_such_a_person_has_one_connection_however_often_they_ask(
    database: Database, store: Store, owner: asyncpg.Connection
) -> None:
    transaction = owner.transaction()
    await transaction.start()
    await owner.execute("INSERT INTO leases (email, kind) VALUES ('ada@example.org', 'job')")

    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%request_vms%'"
    watching = await database.connect("lablink")
    asking = [asyncio.create_task(store.request_vm(request("ada@example.org"))) for _ in range(MANY)]
    async with asyncio.timeout(LIMIT_SECONDS):
        while not await watching.fetchval(f"{waiting} AND query_start < clock_timestamp() - interval '500 ms'"):
            pass
    connections = await watching.fetchval(waiting)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await transaction.rollback()

    assert connections == 1


async def test_all_are_told_when_the_database_is_lost_and_served_when_it_is_back(store: Store, wire: Wire) -> None:
    with wire.down():
        lost = await all_of(store, *crowd(5))

    found = await all_of(store, *crowd(5))

    assert {type(answer) for answer in lost} == {DatabaseUnavailable}
    assert {type(answer) for answer in found} == {Accepted}


@pytest.mark.parametrize("what", ["request", "answer"])
async def test_a_statement_that_is_lost_on_the_way_is_lost_for_all_and_leaves_nobody_twice(
    store: Store, owner: asyncpg.Connection, wire: Wire, what: str
) -> None:
    await all_of(store, request("ada@example.org"))
    loss = wire.lose("answer" if what == "answer" else "request", "request_vms")

    lost = await all_of(store, *crowd(5))
    found = await all_of(store, *crowd(5))

    assert loss.happened.is_set()
    assert {type(answer) for answer in lost} == {DatabaseUnavailable}
    assert {answer.outcome for answer in found if isinstance(answer, Accepted)} == {
        "live" if what == "answer" else "created"
    }
    assert await owner.fetchval("SELECT count(*) FROM leases") == 6


@pytest.mark.usefixtures("patient")
async def test_people_at_two_allocators_at_once_never_share_a_machine(
    database: Database, store: Store, owner: asyncpg.Connection, tmp_path: Path
) -> None:
    await free_machines(owner, 300)
    settings = settings_for(database, tmp_path)
    async with Store.open(pooled_connector(settings.database, "web"), 4) as other:
        people = [request(f"u{n}@example.org") for n in range(200)]
        answers = await asyncio.gather(
            *(each.request_vm(person) for person in people for each in (store, other)), return_exceptions=True
        )

    outcomes = [answer.outcome for answer in answers if isinstance(answer, Accepted)]
    assert sorted(outcomes) == ["created"] * 200 + ["live"] * 200
    assert await owner.fetchval("SELECT count(DISTINCT vm_id) FROM leases WHERE status = 'assigned'") == 200
    assert await owner.fetch("SELECT * FROM broken_invariants()") == []


@pytest.mark.usefixtures("patient")
async def test_where_machines_abound_statements_are_under_way_together(
    database: Database, store: Store, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requesting, "PATIENCE", "0")  # who waits here does not wait alone
    await free_machines(owner, ABUNDANCE + 4 * MOST)
    await all_of(store, *crowd(MOST))  # from which it learns how many there are
    in_the_way = await database.connect("lablink")
    async with in_the_way.transaction():
        await in_the_way.execute("LOCK TABLE leases IN SHARE MODE")
        asking = asyncio.create_task(all_of(store, *(request(f"v{n}@example.org") for n in range(2 * MOST))))
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%request_vms%'"
        async with asyncio.timeout(LIMIT_SECONDS):
            while await owner.fetchval(waiting) < 2:
                pass

    assert {each.outcome for each in await asking if isinstance(each, Accepted)} == {"created"}


@pytest.mark.usefixtures("patient")
async def test_statements_together_an_admin_and_those_who_hand_back_break_no_rule(
    store: Store, database: Database, owner: asyncpg.Connection, tmp_path: Path
) -> None:
    await free_machines(owner, ABUNDANCE + 2 * MOST)
    admin, holder = await database.connect("lablink"), await database.connect("lablink_app")
    settings = settings_for(database, tmp_path)
    done = asyncio.Event()

    async def again_and_again(connection: asyncpg.Connection, *statements: str) -> None:
        for statement in itertools.cycle(statements):
            with suppress(asyncpg.PostgresError):
                await connection.execute(statement)
            if done.is_set():
                return

    async with Store.open(pooled_connector(settings.database, "web"), 4) as other, asyncio.TaskGroup() as group:
        group.create_task(again_and_again(admin, *BY_HAND))
        group.create_task(again_and_again(holder, HANDS_BACK))
        people = [request(f"u{n}@example.org") for n in range(4 * MOST)]
        answers = await asyncio.gather(
            *(each.request_vm(person) for person in people for each in (store, other)), return_exceptions=True
        )
        done.set()

    assert {type(answer) for answer in answers} <= {Accepted, Busy, Conflict}
    assert sum(isinstance(answer, Accepted) for answer in answers) > 7 * MOST
    assert await owner.fetch("SELECT * FROM broken_invariants()") == []

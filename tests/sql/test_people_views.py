"""What people and dashboards read of it all, in words and without secrets."""

import asyncpg
import pytest
import pytest_asyncio

from tests.sql.steps import ADA, BOB, CODE, CYD, PIN, ask, lent, machine
from tests.support.database import Database

VIEWS = (
    *("vm_status", "lease_history", "waiting", "usage_by_day", "fleet_status", "boot_times"),
    *("pool_spending", "forecast_calibration"),
)


@pytest_asyncio.fixture
async def reader(database: Database) -> asyncpg.Connection:
    """A dashboard."""
    return await database.connect("lablink_reader")


async def one(connection: asyncpg.Connection, query: str) -> asyncpg.Record:
    row = await connection.fetchrow(query)
    assert row is not None
    return row


async def test_every_view_can_be_read_by_a_dashboard_and_says_what_it_is(
    owner: asyncpg.Connection, reader: asyncpg.Connection
) -> None:
    for view in VIEWS:
        await reader.fetch(f"SELECT * FROM {view}")
        assert await owner.fetchval("SELECT obj_description($1::regclass)", view)


async def test_no_view_shows_a_secret(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, reader: asyncpg.Connection
) -> None:
    await lent(database, service)
    await ask(service, BOB)
    await service.fetchval("SELECT sweep_usage()")
    tokens = await owner.fetch("SELECT encode(token_sha256, 'hex') FROM leases")
    for view in VIEWS:
        columns = {
            row["attname"]
            for row in await owner.fetch(
                "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0", view
            )
        }
        shown = str(await reader.fetch(f"SELECT v::text FROM {view} v"))
        assert not columns & {"output", "token_sha256", "token_salt", "command", "crd_command", "request_sha256"}
        assert not [secret for secret in (CODE, PIN, *(row[0] for row in tokens if row[0])) if secret in shown]


async def test_a_machine_says_in_words_how_it_is(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, reader: asyncpg.Connection
) -> None:
    await machine(database)

    async def shown() -> tuple[object, ...]:
        return tuple(await one(reader, "SELECT status, held_by, fresh, why FROM vm_status WHERE hostname = 'vm-1'"))

    free = await shown()
    await ask(service, ADA)
    assigned = await shown()
    await owner.execute("UPDATE vms SET status = 'available'")
    cleaning = await shown()
    await owner.execute("UPDATE vms SET status = 'failed', reason = 'fan is loud'")
    held = await shown()

    assert free == ("available", None, True, "free")
    assert assigned == ("in-use", ADA, True, "lent, and the command is about to start")
    assert cleaning == ("cleaning", None, True, "being wiped before it is lent again")
    assert held == (
        "failed",
        None,
        True,
        "held by lablink: fan is loud; until an admin returns it: lablink vms return vm-1",
    )


async def test_a_machine_that_is_not_heard_is_not_called_free(
    database: Database, owner: asyncpg.Connection, reader: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await database.age(vm.vm, 40)
    row = await one(reader, "SELECT fresh, why FROM vm_status")
    assert tuple(row) == (False, "free, but not heard lately: it is not lent")


async def test_a_lease_says_how_long_each_step_took_and_how_it_ended(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, reader: asyncpg.Connection
) -> None:
    _, lease = await lent(database, service)
    await database.age(lease, 60)
    under_way = await one(reader, "SELECT waited IS NOT NULL AS waited, used, how_it_ended FROM lease_history")
    await service.execute("SELECT end_lease($1)", lease)
    over = await one(reader, "SELECT used, how_it_ended FROM lease_history")

    assert under_way["waited"] and under_way["how_it_ended"] == "under way"
    assert under_way["used"].total_seconds() >= 60
    assert over["how_it_ended"] == "handed back or released"


async def test_a_lease_whose_time_was_up_or_that_lost_its_machine_says_so(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, reader: asyncpg.Connection
) -> None:
    vm, lease = await lent(database, service)
    await database.age(lease, 10**6)
    await service.execute("SELECT sweep_deadlines()")
    expired = await one(reader, "SELECT how_it_ended FROM lease_history")
    await vm.clean()
    await ask(service, BOB)
    await owner.execute("UPDATE leases SET status = 'queued' WHERE live")
    by_hand = await one(reader, "SELECT how_it_ended FROM lease_history")
    await vm.clean()
    await owner.execute("DELETE FROM vms")
    moved = await one(reader, "SELECT how_it_ended FROM lease_history")

    assert (expired[0], by_hand[0]) == ("its time was up", "waits for another machine")
    assert moved[0] == "waits for another machine: vm deleted"


async def test_the_queue_is_shown_in_its_order(service: asyncpg.Connection, reader: asyncpg.Connection) -> None:
    for email in (ADA, BOB, CYD):
        await ask(service, email)
    rows = await reader.fetch("SELECT position, email, pool FROM waiting")
    assert [tuple(row) for row in rows] == [(1, ADA, "default"), (2, BOB, "default"), (3, CYD, "default")]


@pytest.mark.parametrize("view", VIEWS)
async def test_a_machine_sees_none_of_them(database: Database, view: str) -> None:
    vm = await machine(database)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await vm.connection.fetch(f"SELECT * FROM public.{view}")

"""A machine is kept for whoever is asked for a fresh line; who does not come is passed over, and keeps the place."""

from uuid import UUID

import asyncpg

from tests.sql.steps import ADA, BOB, CYD, Machine, ask, claimed, lease_of, lent, machine, row_of
from tests.sql.test_moves import renew
from tests.support.database import Database


async def out_of_time(owner: asyncpg.Connection, service: asyncpg.Connection) -> None:
    """Whoever has a machine and has not begun is late."""
    await owner.execute("UPDATE leases SET deadline = clock() - interval '1 second' WHERE live AND vm_id IS NOT NULL")
    await service.execute("SELECT sweep_deadlines()")


async def with_nobody_there(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, seconds: float = 0
) -> tuple[Machine, UUID]:
    """A machine was kept for somebody, who had it for so long and did not come; another person waits behind them."""
    vm, lease = await claimed(database, service)
    await ask(service, BOB)
    await vm.report(lease, 1, "failed", failure="code-used")
    await database.age(lease, seconds)
    await out_of_time(owner, service)
    return vm, lease


async def test_who_does_not_come_while_a_machine_is_kept_is_passed_over_and_the_next_one_has_it(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await with_nobody_there(database, owner, service)

    away = await lease_of(owner, lease)
    assert (away["status"], away["needs_line"], away["passed_over"], away["moves"]) == ("queued", True, True, 0)
    assert (await row_of(owner))["status"] == "cleaning"
    await vm.clean()
    assert (await row_of(owner))["email"] == BOB
    await machine(database, "vm-2")
    await service.execute("SELECT sweep_queue()")
    assert (await row_of(owner, "vm-2"))["status"] == "available"
    assert await owner.fetch("SELECT * FROM broken_invariants()") == []
    said = {row["what"]: row["holds"] for row in await owner.fetch("SELECT * FROM why_lease($1)", lease)}
    assert said == {"its line is here": False, "next": None}


async def test_who_comes_back_has_the_place_that_they_had_and_all_of_their_time(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await database.stop_clock()
    vm, lease = await with_nobody_there(database, owner, service)
    place = "SELECT position FROM lease_views WHERE id = $1"
    assert await owner.fetchval(place, lease) is None

    assert await renew(service, lease) == "queued"
    assert await owner.fetchval(place, lease) == 1
    await vm.clean()

    served = await lease_of(owner, lease)
    assert (served["status"], served["hostname"]) == ("assigned", "vm-1")
    whole = await owner.fetchval("SELECT make_interval(secs => lease_seconds) FROM pools WHERE name = 'default'")
    assert served["expires_at"] - served["assigned_at"] == whole


async def test_who_comes_back_while_a_machine_is_free_has_it_at_once(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await with_nobody_there(database, owner, service)
    await owner.execute("UPDATE leases SET status = 'cancelled' WHERE id <> $1", lease)
    await machine(database, "vm-2")

    assert await renew(service, lease) == "assigned"
    assert (await lease_of(owner, lease))["hostname"] == "vm-2"


async def test_who_comes_back_is_told_a_time_anew_and_not_counted_as_somebody_who_waited_all_along(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, before = await lent(database, service, BOB)
    lease = (await ask(service, ADA))["lease_id"]
    await service.execute("SELECT sweep_forecasts()")
    await owner.execute("DELETE FROM lease_secrets")
    await service.execute("SELECT end_lease($1)", before)
    await vm.clean()
    await out_of_time(owner, service)
    assert await owner.fetchval("SELECT count(*) FROM foretold WHERE lease_id = $1", lease) == 1

    await renew(service, lease)

    assert await owner.fetchval("SELECT count(*) FROM foretold") == 0
    assert await service.fetchval("SELECT sweep_forecasts()") == 1


async def test_who_never_comes_back_is_waited_for_as_long_as_anybody_in_the_queue(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await with_nobody_there(database, owner, service)
    await owner.execute("UPDATE leases SET deadline = clock() - interval '1 second' WHERE id = $1", lease)
    await service.execute("SELECT sweep_deadlines()")
    over = await lease_of(owner, lease)
    assert (over["status"], over["failure"]) == ("failed", "no-line")


async def test_no_word_that_is_typed_and_no_machine_that_is_lent_by_hand_leaves_somebody_passed_over_or_takes_it_away(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await with_nobody_there(database, owner, service)
    await owner.execute("UPDATE leases SET trouble = 'deadline' WHERE id = $1", lease)
    await vm.clean()
    assert (await row_of(owner))["email"] == BOB

    await machine(database, "vm-2")
    await owner.execute("UPDATE vms SET status = 'in-use', lease_id = $1 WHERE hostname = 'vm-2'", lease)
    served = await lease_of(owner, lease)
    assert (served["status"], served["passed_over"]) == ("assigned", False)
    put_in = (
        "INSERT INTO leases (email, status, kind, passed_over) VALUES ($1, 'queued', 'job', true) RETURNING passed_over"
    )
    assert await owner.fetchval(put_in, CYD) is False


async def test_a_machine_is_not_to_blame_for_what_happened_before_to_those_who_do_not_come(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    """Three lose a bad machine each, a good one is kept for each in turn, and nobody comes."""
    for number, email in enumerate((ADA, BOB, CYD)):
        bad = await machine(database, f"bad-{number}")
        await ask(service, email)
        await bad.claim(1)
    await out_of_time(owner, service)
    good = await machine(database, "good")
    for _ in range(3):
        await out_of_time(owner, service)
        await good.clean()
    assert await owner.fetchval("SELECT count(*) FROM leases WHERE passed_over") == 3
    assert (await row_of(owner, "good"))["status"] == "available"

"""How much the machines are used: counted day by day, so that old days are counted once."""

from uuid import UUID

import asyncpg
import pytest_asyncio

from tests.sql.steps import ADA, BOB, ask, claimed, lent
from tests.sql.test_passed_over import with_nobody_there
from tests.support.database import Database

DAY = 86_400.0


@pytest_asyncio.fixture
async def reader(database: Database) -> asyncpg.Connection:
    """A dashboard."""
    return await database.connect("lablink_reader")


async def count_all(service: asyncpg.Connection) -> bool:
    """Count until nothing is left to count; returns whether anything was."""
    counted = False
    while await service.fetchval("SELECT sweep_usage()"):
        counted = True
    return counted


async def shown(reader: asyncpg.Connection) -> list[tuple[object, ...]]:
    return [
        tuple(row)
        for row in await reader.fetch("SELECT day, leases, hours_lent, under_way FROM usage_by_day ORDER BY 1")
    ]


async def move_lease(database: Database, lease: UUID, asked: str, assigned: str, ended: str) -> None:
    """Give a lease that is over other times, beside the rules."""
    superuser = await database.connect("postgres")
    await superuser.execute("SET session_replication_role = replica")
    times = "created_at = $2::text::timestamptz, assigned_at = $3::text::timestamptz, ended_at = $4::text::timestamptz"
    await superuser.execute(f"UPDATE leases SET {times} WHERE id = $1", lease, asked, assigned, ended)


async def over(database: Database, service: asyncpg.Connection) -> UUID:
    """A lease that is over."""
    vm, lease = await claimed(database, service)
    await vm.report(lease, 1, "exited", 0)
    await service.execute("SELECT end_lease($1)", lease)
    return lease


async def test_a_days_use_is_counted_in_utc_and_a_lease_over_midnight_on_both_days(
    database: Database, service: asyncpg.Connection, reader: asyncpg.Connection
) -> None:
    lease = await over(database, service)
    await move_lease(database, lease, "2026-03-01 21:59:30+00", "2026-03-01 22:00+00", "2026-03-02 01:30+00")
    await count_all(service)

    rows = await reader.fetch("SELECT * FROM usage_by_day ORDER BY day")
    counted = [(str(row["day"]), row["leases"], row["people"], float(row["hours_lent"])) for row in rows]
    assert counted == [("2026-03-01", 1, 1, 2.0), ("2026-03-02", 0, 0, 1.5)]
    assert [row["median_wait_seconds"] and float(row["median_wait_seconds"]) for row in rows] == [30.0, None]


async def test_use_is_counted_anew_after_five_minutes(
    database: Database, service: asyncpg.Connection, reader: asyncpg.Connection
) -> None:
    await ask(service, ADA)
    first = await count_all(service)
    await ask(service, BOB)
    too_soon = await count_all(service)
    await database.let_pass(301)

    assert (first, too_soon, await count_all(service)) == (True, False, True)
    assert await reader.fetchval("SELECT sum(leases) FROM usage_by_day") == 2


async def test_use_is_counted_while_somebody_reads_it(
    database: Database, service: asyncpg.Connection, reader: asyncpg.Connection
) -> None:
    await ask(service, ADA)
    async with reader.transaction():
        before = await reader.fetch("SELECT * FROM usage_by_day")
        assert await count_all(service)
    assert before == []


async def test_a_lease_that_ends_days_later_is_counted_on_the_day_it_was_asked_for(
    database: Database, service: asyncpg.Connection, reader: asyncpg.Connection
) -> None:
    await database.stand_at("2027-01-15 12:00+00")
    _, lease = await lent(database, service)
    await database.age(lease, 9 * DAY)
    await count_all(service)
    first_day, *others, today = await shown(reader)
    await service.execute("SELECT end_lease($1)", lease)
    await database.stand_at("2027-01-15 12:05:01+00")
    await count_all(service)

    assert first_day[1:2] + first_day[3:] == (1, 1)
    assert [row[1:] for row in others] == [(0, 24, 0)] * len(others)
    ended_first, *ended_others, ended_today = await shown(reader)
    assert ended_first == (*first_day[:3], 0)
    assert ended_others == others
    assert ended_today[0] == today[0]


async def test_a_day_that_is_settled_is_not_counted_again(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, reader: asyncpg.Connection
) -> None:
    await database.stand_at("2027-01-15 12:00+00")
    lease = await over(database, service)
    await move_lease(database, lease, "2026-03-01 10:00+00", "2026-03-01 10:00+00", "2026-03-01 11:00+00")
    await count_all(service)
    before = await shown(reader)
    await owner.execute("DELETE FROM leases")
    await database.stand_at("2027-01-15 12:05:01+00")

    assert await service.fetchval("SELECT sweep_usage()") in (1, 2), "yesterday; today, if a second is enough for both"
    assert await shown(reader) == before


async def test_what_somebody_emptied_is_counted_anew(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, reader: asyncpg.Connection
) -> None:
    lease = await over(database, service)
    await move_lease(database, lease, "2026-03-01 10:00+00", "2026-03-01 10:00+00", "2026-03-03 11:00+00")
    await count_all(service)
    before = await shown(reader)
    await owner.execute("TRUNCATE usage_by_day")
    await count_all(service)

    assert len(before) == 3
    assert await shown(reader) == before


async def test_what_one_round_is_too_short_for_the_next_ones_count(
    database: Database, service: asyncpg.Connection, reader: asyncpg.Connection
) -> None:
    lease = await over(database, service)
    await move_lease(database, lease, "2026-03-01 10:00+00", "2026-03-01 10:00+00", "2026-03-01 11:00+00")
    await ask(service, BOB)

    assert await service.fetchval("SELECT sweep_usage() FROM pg_sleep(1.1)") == 1  # its second is over as it begins
    assert [str(day) for day, *_ in await shown(reader)] == ["2026-03-01"]
    await count_all(service)
    assert await reader.fetchval("SELECT sum(leases) FROM usage_by_day") == 2


async def test_a_round_that_begins_late_counts_a_day_all_the_same(
    database: Database, service: asyncpg.Connection, reader: asyncpg.Connection
) -> None:
    await over(database, service)
    assert await service.fetchval("SELECT sweep_usage() FROM pg_sleep(1.1)") == 1
    await count_all(service)
    assert await reader.fetchval("SELECT sum(leases) FROM usage_by_day") == 1


async def test_no_day_is_left_out_where_clocks_were_once_changed_at_midnight(owner: asyncpg.Connection) -> None:
    """Nepal's 1 January 1986 began at 0:15; steps of a day in local time go on from there, past the last midnight."""
    days = await owner.fetch("SELECT * FROM days_to_count('1985-12-30', '1986-01-03')")
    assert [str(day) for (day,) in days] == ["1985-12-30", "1985-12-31", "1986-01-01", "1986-01-02", "1986-01-03"]


async def test_a_lease_whose_end_is_dated_before_its_beginning_ends_and_is_counted(
    database: Database, service: asyncpg.Connection, reader: asyncpg.Connection
) -> None:
    lease = await over(database, service)
    await move_lease(database, lease, "2026-03-02 00:00:01+00", "2026-03-02 00:00:01+00", "2026-03-01 23:59:59+00")
    await count_all(service)
    assert [(str(row[0]), *row[1:]) for row in await shown(reader)] == [("2026-03-02", 1, 0, 0)]


async def test_only_the_time_with_a_machine_is_counted(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, reader: asyncpg.Connection
) -> None:
    await database.stand_at("2027-01-15 12:00+00")
    _, lease = await with_nobody_there(database, owner, service, 360)
    await database.age(lease, 720)
    await service.execute("SELECT end_lease($1)", lease)
    await count_all(service)
    assert await reader.fetchval("SELECT sum(hours_lent)::float8 FROM usage_by_day") == 0.1

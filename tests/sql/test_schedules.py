"""A workshop at nine: machines are there when it begins, leases end when it does, whatever clocks are doing."""

import json
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from tests.sql.steps import ask, lease_of, lent, refused
from tests.sql.test_scaling import WANTED, scale, sized
from tests.support.database import Database

ADD = """
    INSERT INTO pool_schedules (pool, name, days, on_date, starts_at, ends_at, time_zone, machines, ends_leases)
    VALUES ('default', $1, $2, $3::text::date, $4::text::time, $5::text::time, $6, $7, $8)
"""
WEEKDAYS = ["mon", "tue", "wed", "thu", "fri"]
TIMES = "SELECT o.begins, o.ends FROM pool_schedules s, occurrences(s, $1::text::timestamptz) o ORDER BY 1"
IN_UTC = "SELECT to_char($1::timestamptz AT TIME ZONE 'UTC', 'MM-DD HH24:MI')"


async def schedule(
    owner: asyncpg.Connection,
    name: str = "workshop",
    days: list[str] | None = None,
    date: str | None = None,
    starts: str = "09:00",
    ends: str = "18:00",
    zone: str | None = "Europe/Berlin",
    machines: int = 5,
    ends_leases: bool = False,
) -> None:
    await owner.execute(ADD, name, days, date, starts, ends, zone, machines, ends_leases)


async def times(owner: asyncpg.Connection, since: str) -> list[tuple[str, str]]:
    """When it begins and ends, in UTC."""
    rows = await owner.fetch(TIMES, since)
    return [(await owner.fetchval(IN_UTC, begins), await owner.fetchval(IN_UTC, ends)) for begins, ends in rows]


async def test_nine_is_nine_where_it_is_before_and_after_summer_time_begins_and_ends(owner: asyncpg.Connection) -> None:
    await schedule(owner, days=["fri", "mon"])
    assert await times(owner, "2027-03-26 00:00+00") == [
        ("03-26 08:00", "03-26 17:00"),
        ("03-29 07:00", "03-29 16:00"),
        ("04-02 07:00", "04-02 16:00"),
    ]
    assert await times(owner, "2027-10-29 00:00+00") == [
        ("10-29 07:00", "10-29 16:00"),
        ("11-01 08:00", "11-01 17:00"),
        ("11-05 08:00", "11-05 17:00"),
    ]


async def test_a_night_over_the_change_of_clocks_is_an_hour_shorter_or_longer(owner: asyncpg.Connection) -> None:
    await schedule(owner, days=["sat"], starts="22:00", ends="06:00")
    assert ("03-27 21:00", "03-28 04:00") in await times(owner, "2027-03-27 00:00+00")
    assert ("10-30 20:00", "10-31 05:00") in await times(owner, "2027-10-30 00:00+00")


async def test_what_begins_in_the_hour_that_clocks_skip_begins_when_they_go_on(owner: asyncpg.Connection) -> None:
    await schedule(owner, date="2027-03-28", starts="02:30", ends="12:00")
    assert await times(owner, "2027-03-01 00:00+00") == [("03-28 01:30", "03-28 10:00")]


async def test_a_schedule_of_the_day_before_that_is_not_over_is_there(owner: asyncpg.Connection) -> None:
    await schedule(owner, days=["mon"], starts="22:00", ends="06:00", zone="America/New_York")
    assert ("01-12 03:00", "01-12 11:00") in await times(owner, "2027-01-12 10:00+00")
    assert ("01-12 03:00", "01-12 11:00") not in await times(owner, "2027-01-12 11:00+00")


async def test_a_schedule_goes_by_the_clocks_of_its_pool_unless_it_says_by_whose(owner: asyncpg.Connection) -> None:
    await owner.execute("UPDATE pools SET time_zone = 'Asia/Kathmandu'")
    await schedule(owner, date="2027-01-11", zone=None)
    assert await times(owner, "2027-01-01 00:00+00") == [("01-11 03:15", "01-11 12:15")]


async def boots_took(owner: asyncpg.Connection, *seconds: float) -> None:
    await owner.execute(
        "INSERT INTO boots (vm_id, boot_id, pool, phases, seconds)"
        " SELECT 1000 + s, gen_random_uuid(), 'default', '[]', s FROM unnest($1::float8[]) s",
        list(seconds),
    )


@pytest.mark.parametrize(
    ("now", "wanted"), [("08:49:59", 1), ("08:50", 5), ("12:00", 5), ("17:59:59", 5), ("18:00", 1)]
)
async def test_machines_are_begun_ten_minutes_before_where_no_boot_is_known_and_wanted_until_the_end(
    database: Database, owner: asyncpg.Connection, now: str, wanted: int
) -> None:
    await sized(owner)
    await schedule(owner, days=WEEKDAYS, machines=5)
    await database.stand_at(f"2027-01-11 {now}+01")
    assert await owner.fetchval(WANTED) == wanted


async def test_on_other_days_nothing_is_wanted(database: Database, owner: asyncpg.Connection) -> None:
    await sized(owner)
    await schedule(owner, days=WEEKDAYS)
    await database.stand_at("2027-01-10 12:00+01")
    assert await owner.fetchval(WANTED) == 1


async def lead(owner: asyncpg.Connection, machines: int) -> float:
    return float(await owner.fetchval("SELECT extract(epoch FROM lead_time(wave_time('default'), $1, 10))", machines))


async def test_they_are_begun_as_long_before_as_nine_of_ten_boots_took_and_as_often_as_it_takes(
    owner: asyncpg.Connection,
) -> None:
    await sized(owner, at_once=10)
    await boots_took(owner, *range(100, 120))
    assert await lead(owner, 10) == 117
    assert await lead(owner, 25) == 3 * 117
    await owner.execute(
        "INSERT INTO operations (kind, status, started_at, finished_at)"
        " VALUES ('fleet grow', 'done', clock() - interval '40 seconds', clock())"
    )
    assert await lead(owner, 10) == 157


async def test_the_schedule_that_asks_for_most_is_followed_within_the_pools_most(
    database: Database, owner: asyncpg.Connection
) -> None:
    await sized(owner, most=7)
    await schedule(owner, "weekdays", days=WEEKDAYS, machines=3)
    await schedule(owner, "course", date="2027-01-11", starts="10:00", machines=6)
    await schedule(owner, "crowd", date="2027-01-12", machines=70)
    for moment, wanted in (("11 09:00", 3), ("11 10:00", 6), ("12 10:00", 7)):
        await database.stand_at(f"2027-01-{moment}+01")
        assert await owner.fetchval(WANTED) == wanted


async def test_a_beginning_that_nobody_saw_is_made_good(database: Database, owner: asyncpg.Connection) -> None:
    await sized(owner)
    await schedule(owner, days=WEEKDAYS, machines=5)
    await database.stand_at("2027-01-11 09:25+01")
    assert await scale(owner) == (5, [])


async def ending(database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, asked_at: str) -> UUID:
    """Ada's lease of eight hours, begun then, on a day whose leases end at six."""
    await database.stand_at(f"2027-01-11 {asked_at}+01")
    await schedule(owner, days=WEEKDAYS, ends_leases=True)
    _, lease = await lent(database, service)
    return lease


async def moved_on(database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, now: str) -> int:
    """How many leases the hours of the pool change then."""
    await database.stand_at(f"2027-01-11 {now}+01")
    await owner.execute("UPDATE vm_heartbeats SET seen_at = clock()")
    return int(await service.fetchval("SELECT sweep_schedules()"))


async def told(owner: asyncpg.Connection) -> list[Any]:
    rows = await owner.fetch("SELECT detail FROM events WHERE kind = 'schedule.ends' ORDER BY id")
    return [json.loads(row["detail"]) for row in rows]


async def test_leases_end_with_the_hours_of_their_pool_and_their_page_warns_before(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    lease = await ending(database, owner, service, "12:00")
    assert await moved_on(database, owner, service, "12:01") == 1
    row = await service.fetchrow("SELECT expires_at, warned_from FROM lease_views WHERE id = $1", lease)
    assert row is not None
    assert [moment.timestamp() for moment in row] == [
        datetime.fromisoformat(f"2027-01-11 {moment}+01:00").timestamp() for moment in ("18:00", "17:45")
    ]
    assert await told(owner) == []
    assert await moved_on(database, owner, service, "17:45") == 0
    assert await moved_on(database, owner, service, "17:46") == 0
    [event] = await told(owner)
    assert (event["name"], event["leases"]) == ("workshop", 1)
    await moved_on(database, owner, service, "18:00:01")
    await service.execute("SELECT sweep_deadlines()")
    assert (await lease_of(owner, lease))["status"] == "ended"


async def test_nobody_makes_a_lease_longer_than_the_hours(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE pools SET extend_seconds = 7200, lease_seconds = 3600")
    lease = await ending(database, owner, service, "16:30")
    until = await service.fetchval("SELECT extend_lease($1)", lease)
    assert until.timestamp() == datetime.fromisoformat("2027-01-11 18:00+01:00").timestamp()
    with refused("LL012"):
        await service.execute("SELECT extend_lease($1)", lease)


async def test_an_end_that_nobody_saw_is_made_good_with_a_warning(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    lease = await ending(database, owner, service, "12:00")
    assert await moved_on(database, owner, service, "18:20") == 1
    assert await moved_on(database, owner, service, "18:21") == 0
    until = (await lease_of(owner, lease))["expires_at"]
    assert until.timestamp() == datetime.fromisoformat("2027-01-11 18:35+01:00").timestamp()
    assert len(await told(owner)) == 1


async def test_also_of_a_lease_that_somebody_had_locked_when_it_was_seen(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    lease = await ending(database, owner, service, "12:00")
    other = await database.connect("lablink")
    async with other.transaction():
        await other.execute("SELECT FROM leases WHERE id = $1 FOR UPDATE", lease)
        assert await moved_on(database, owner, service, "18:20") == 0
        assert await told(owner) == []
    assert await moved_on(database, owner, service, "18:21") == 1
    assert [event["leases"] for event in await told(owner)] == [1]


async def test_however_long_nobody_looked(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE pools SET lease_seconds = 30 * 86400")
    lease = await ending(database, owner, service, "12:00")
    await owner.execute("UPDATE pool_schedules SET days = '{mon}'")
    await database.stand_at("2027-01-13 10:00+01")
    await owner.execute("UPDATE vm_heartbeats SET seen_at = clock()")
    assert await service.fetchval("SELECT sweep_schedules()") == 1
    until = (await lease_of(owner, lease))["expires_at"]
    assert until.timestamp() == datetime.fromisoformat("2027-01-13 10:15+01:00").timestamp()
    assert len(await told(owner)) == 1


async def test_of_hours_on_one_date_too(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE pools SET lease_seconds = 60 * 86400")
    await database.stand_at("2027-01-11 12:00+01")
    await schedule(owner, date="2027-01-11", ends_leases=True)
    await lent(database, service)
    await database.stand_at("2027-02-11 12:00+01")
    await owner.execute("UPDATE vm_heartbeats SET seen_at = clock()")
    assert await service.fetchval("SELECT sweep_schedules()") == 1
    assert await service.fetchval("SELECT sweep_schedules()") == 0
    assert len(await told(owner)) == 1


async def test_hours_that_were_over_before_they_were_written_down_end_nobodys_lease(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await ending(database, owner, service, "18:30")
    assert await moved_on(database, owner, service, "18:31") == 0
    await owner.execute("UPDATE pool_schedules SET ends_at = '18:30'")
    assert await moved_on(database, owner, service, "18:32") == 0


async def test_who_comes_after_the_end_has_a_whole_lease(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await ending(database, owner, service, "12:00")
    await database.stand_at("2027-01-11 18:10+01")
    await database.vm("vm-2")
    late = (await ask(service, "late@example.org"))["lease_id"]
    assert await moved_on(database, owner, service, "18:20") == 1
    left = (await lease_of(owner, late))["expires_at"]
    assert left.timestamp() == datetime.fromisoformat("2027-01-12 02:10+01:00").timestamp()
    await service.execute("SELECT sweep_deadlines()")


async def test_a_pool_that_is_paused_ends_nobodys_lease_before_it_goes_on(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await ending(database, owner, service, "12:00")
    await owner.execute("SELECT pause_pool('default', true)")
    assert await moved_on(database, owner, service, "18:20") == 0
    await owner.execute("SELECT pause_pool('default', false)")
    assert await moved_on(database, owner, service, "18:25") == 1


async def test_the_history_has_what_was_scheduled(owner: asyncpg.Connection) -> None:
    await schedule(owner, days=["mon"])
    await owner.execute("UPDATE pool_schedules SET machines = 7")
    await owner.execute("DELETE FROM pool_schedules")
    rows = await owner.fetch("SELECT kind, detail FROM events ORDER BY id")
    assert [row["kind"] for row in rows] == ["schedule.added", "schedule.changed", "schedule.removed"]
    assert json.loads(rows[1]["detail"])["machines"] == 7

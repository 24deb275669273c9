"""What an admin may write in psql about pools, groups and schedules: no number is too odd for words."""

import asyncpg
import pytest

from tests.sql.steps import ADA, BOB, ask, machines, refused
from tests.sql.test_scaling import scale, sized
from tests.support.database import Database

SCHEDULE = (
    "INSERT INTO pool_schedules (pool, name, days, on_date, starts_at, ends_at, machines, time_zone) "
    "VALUES ('{pool}', '{name}', {days}, {date}, '9:00', '{ends}', {machines}, {zone})"
)
MONDAYS = {"days": "'{mon}'", "date": "NULL", "ends": "18:00"}
USUAL = {"pool": "default", "name": "course", "machines": 5, "zone": "NULL"} | MONDAYS


def schedule(**odd: object) -> str:
    """The statement that adds a schedule, usual but for this."""
    return SCHEDULE.format(**USUAL | odd)


@pytest.mark.parametrize(
    "change",
    [
        "budget = 'NaN'",
        "budget = 'Infinity'",
        "price_per_hour = 'NaN'",
        "price_per_hour = 1e30",
        "spare_machines = 2147483647",
        "max_machines = 2147483647",
        "min_machines = 100001, max_machines = 100001",
        "boots_at_once = 2147483647",
    ],
)
async def test_what_nothing_can_be_worked_out_with_is_refused(owner: asyncpg.Connection, change: str) -> None:
    with refused("23514"):
        await owner.execute(f"UPDATE pools SET {change}")


async def test_a_budget_for_more_leases_than_anybody_can_count_lets_people_ask(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE pools SET budget = 1e9, price_per_hour = 1e-12")

    assert (await ask(service))["outcome"] == "created"


async def test_as_many_leases_as_one_likes_are_not_counted_one_by_one(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE pools SET per_person = 2147483647")

    assert [(await ask(service))["outcome"] for _ in range(3)] == ["created"] * 3
    seats = [row["seat"] for row in await owner.fetch("SELECT seat FROM leases ORDER BY place")]
    assert seats == ["default/1", "default/2", "default/3"]


async def test_a_job_may_run_for_as_long_as_can_be_written(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE pools SET command_seconds = 2147483647")
    [vm] = await machines(database, 1)
    await ask(service)

    assert (await vm.claim(1))["kind"] == "desktop"


@pytest.mark.parametrize("zone", ["CET", "EST", "UTC+2", "+02", "Berlin", "Europe/Bonn", "Europe/Berlin+1", ""])
async def test_a_time_zone_is_named_by_a_place_whose_clocks_it_has(owner: asyncpg.Connection, zone: str) -> None:
    for statement in (f"UPDATE pools SET time_zone = '{zone}'", schedule(zone=f"'{zone}'")):
        with refused("23514"):
            await owner.execute(statement)


@pytest.mark.parametrize("zone", ["UTC", "Etc/GMT-2", "America/Argentina/Buenos_Aires", "America/Port-au-Prince"])
async def test_every_place_is_one(owner: asyncpg.Connection, zone: str) -> None:
    await owner.execute(f"UPDATE pools SET time_zone = '{zone}'")
    await owner.execute(schedule())

    assert await owner.fetchval("SELECT time_zone FROM pool_schedules") == zone


@pytest.mark.parametrize("date", ["infinity", "5874897-01-01", "0206-11-30"])
async def test_a_day_that_never_comes_is_refused(owner: asyncpg.Connection, date: str) -> None:
    with refused("23514"):
        await owner.execute(schedule(days="NULL", date=f"'{date}'"))


async def test_a_schedule_for_more_machines_than_there_may_be_is_begun_as_early_as_for_those(
    owner: asyncpg.Connection,
) -> None:
    await owner.execute("UPDATE pools SET max_machines = 4, boots_at_once = 2")
    await owner.execute(schedule(machines=100_000))
    begins = "SELECT DISTINCT begins - made_from FROM scheduled('default', size_of('default'))"

    assert await owner.fetchval(f"SELECT ({begins}) = 2 * wave_time('default')")


async def test_a_schedule_is_of_a_pool_that_there_is_and_has_a_name_of_its_own_there(owner: asyncpg.Connection) -> None:
    await owner.execute(schedule())
    await owner.execute(schedule(name="evening"))

    with refused("LL005"):
        await owner.execute(schedule(pool="gpu"))
    with refused("23505"):
        await owner.execute("UPDATE pool_schedules SET name = 'course' WHERE name = 'evening'")
    await owner.execute("UPDATE pool_schedules SET name = 'night' WHERE name = 'evening'")
    event = "SELECT detail ->> 'name' FROM events WHERE kind = 'schedule.changed'"
    assert await owner.fetchval(event) == "night"


async def test_since_when_a_pool_is_paused_is_not_for_anybody_to_say(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE pools SET paused = true")
    await ask(service)

    for since in ("NULL", "'-infinity'"):
        with refused("23514"):
            await owner.execute(f"UPDATE pools SET paused_at = {since}")
    await owner.execute("UPDATE pools SET paused = false")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE members SET group_name = 'botany'",
        "INSERT INTO shares VALUES ('default', 'botany', 1)",
        "INSERT INTO shares VALUES ('gpu', 'biology', 1)",
        "INSERT INTO join_codes (group_name, code_sha256, closes_at) VALUES ('botany', sha256('x'), 'infinity')",
    ],
)
async def test_a_group_or_pool_that_is_not_there_is_said_to_be_so(owner: asyncpg.Connection, statement: str) -> None:
    await owner.execute("INSERT INTO groups VALUES ('biology')")
    await owner.execute("INSERT INTO members VALUES ($1, 'biology')", ADA)

    with refused("LL005"):
        await owner.execute(statement)


async def test_a_group_that_is_renamed_takes_people_shares_and_codes_along(owner: asyncpg.Connection) -> None:
    await owner.execute("INSERT INTO groups VALUES ('biology')")
    await owner.execute("INSERT INTO members VALUES ($1, 'biology')", ADA)
    await owner.execute("INSERT INTO shares VALUES ('default', 'biology', 1)")
    await owner.execute(
        "INSERT INTO join_codes (group_name, code_sha256, closes_at) VALUES ('biology', sha256('x'), 'infinity')"
    )

    await owner.execute("UPDATE groups SET name = 'botany'")

    for table in ("members", "shares", "join_codes"):
        assert await owner.fetchval(f"SELECT group_name FROM {table}") == "botany"
    told = await owner.fetch("SELECT kind, detail ->> 'group' FROM events WHERE kind LIKE 'group.%'")
    assert {tuple(row) for row in told} >= {("group.removed", "biology"), ("group.added", "botany")}


@pytest.mark.parametrize("statement", ["DELETE FROM pools", "UPDATE pools SET name = 'gpus'"])
async def test_a_pool_that_something_is_in_says_what_and_what_to_do(
    owner: asyncpg.Connection, service: asyncpg.Connection, statement: str
) -> None:
    await owner.execute("INSERT INTO pools (name) VALUES ('gpu')")
    await owner.execute("INSERT INTO vms (hostname, pool) VALUES ('vm-1', 'gpu')")
    await ask(service, BOB, pool="gpu")

    with pytest.raises(asyncpg.PostgresError, match="pool gpu has 1 machine, 1 lease") as refusal:
        await owner.execute(f"{statement} WHERE name = 'gpu'")
    await owner.execute("UPDATE leases SET status = 'cancelled'")
    for todo in refusal.value.as_dict()["hint"].partition(": ")[2].split("; "):
        await owner.execute(todo)
    await owner.execute(f"{statement} WHERE name = 'gpu'")


@pytest.mark.parametrize("statement", ["DELETE FROM pool_scaling", "TRUNCATE pool_scaling"])
async def test_machines_that_were_to_go_are_lent_again_when_nobody_remembers_that_they_were(
    database: Database, owner: asyncpg.Connection, statement: str
) -> None:
    await sized(owner, spare=0, after=0)
    await machines(database, 3)
    await owner.execute("SELECT drain_vm('vm-1')")
    assert (await scale(owner))[1] == ["vm-2", "vm-3"]
    await owner.execute("UPDATE vms SET status = 'failed' WHERE hostname = 'vm-3'")

    await owner.execute(statement)

    assert [row["hostname"] for row in await owner.fetch("SELECT hostname FROM vms WHERE draining")] == ["vm-1"]
    assert (await scale(owner))[1] == ["vm-2"], "as if it were the first look"

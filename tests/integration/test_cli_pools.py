"""`lablink pools` and `lablink schedules`: how large pools are, when they are larger, and pauses."""

import asyncpg
import pytest

from tests.sql.steps import ADA, ask, machine
from tests.support.admin import answer, lablink
from tests.support.database import Database

WORKSHOP = ("--from", "9:00", "--to", "18:00", "--machines", "25")


async def test_each_pool_is_told_with_what_is_wanted_allowed_and_planned(
    database: Database, owner: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE pools SET max_machines = 30")
    await answer(database, "schedules", "add", "workshop", "--date", "2099-11-30", *WORKSHOP)
    await machine(database)

    [pool] = await answer(database, "pools", "list")
    shown = (await lablink(database, "pools", "list")).stdout

    assert (pool["free"], pool["wanted"], pool["min_machines"], pool["max_machines"]) == (1, 1, 0, 30)
    assert pool["hours"] == "25 machines for workshop from Mon 30 Nov 09:00 until 18:00 (UTC)"
    assert "0 to 30" in shown and "open" in shown


async def test_a_pool_is_paused_and_goes_on(database: Database) -> None:
    paused = await lablink(database, "pools", "pause", "default")
    await ask(await database.connect("lablink_app"), ADA)
    [pool] = await answer(database, "pools", "list")
    why = (await lablink(database, "why", "default")).stdout
    resumed = await answer(database, "pools", "resume", "default")

    assert "default is paused" in paused.stdout
    assert pool["paused"] and pool["waiting"] == 1
    assert "its pool is not paused" in why and "lablink pools resume default" in why
    assert resumed == {"name": "default", "paused": False}


async def test_a_pool_that_is_not_there_is_said_to_be_so(database: Database) -> None:
    done = await lablink(database, "pools", "pause", "gpu")

    assert done.returncode == 4 and "no pool gpu" in done.stderr


async def test_why_of_what_is_not_there_says_all_that_it_could_be(database: Database) -> None:
    done = await lablink(database, "why", "vm-33")

    assert done.returncode == 4 and "no machine, no pool and no lease 'vm-33'" in done.stderr


async def test_a_schedule_is_added_listed_and_removed(database: Database) -> None:
    added = await lablink(
        database, "schedules", "add", "weekdays", "--days", "mon-wed,fri", *WORKSHOP, "--time-zone", "Europe/Berlin"
    )
    [row] = await answer(database, "schedules", "list")
    shown = (await lablink(database, "schedules", "list")).stdout
    removed = await lablink(database, "schedules", "remove", "weekdays")
    again = await lablink(database, "schedules", "remove", "weekdays")

    assert "weekdays is scheduled: 25 machines from " in added.stdout
    assert row["days"] == ["mon", "tue", "wed", "fri"] and row["time_zone"] == "Europe/Berlin" and row["made_from"]
    assert "mon, tue, wed, fri" in shown and "09:00 " in shown
    assert removed.returncode == 0 and again.returncode == 4
    assert await answer(database, "schedules", "list") == []


async def test_who_adds_a_schedule_is_told_of_that_one(database: Database) -> None:
    await lablink(database, "schedules", "add", "weekdays", "--days", "mon-sun", *WORKSHOP)

    over = await lablink(database, "schedules", "add", "workshop", "--date", "2020-11-30", *WORKSHOP)
    later = await answer(database, "schedules", "add", "course", "--date", "2099-11-30", *WORKSHOP, "--end-leases")

    assert "workshop is over: it has no time to come." in over.stdout
    assert later["next"] == "25 machines from Mon 30 Nov 2099 09:00 until 18:00 (UTC); leases end then"


async def test_a_schedule_that_was_written_to_last_until_midnight_is_listed_so(
    database: Database, owner: asyncpg.Connection
) -> None:
    await owner.execute(
        "INSERT INTO pool_schedules (pool, name, days, starts_at, ends_at, machines) "
        "VALUES ('default', 'day', '{mon}', '00:00', '24:00', 5)"
    )

    assert "00:00  24:00" in (await lablink(database, "schedules", "list")).stdout
    assert [row["ends_at"] for row in await answer(database, "schedules", "list")] == ["24:00:00"]


@pytest.mark.parametrize(
    ("most", "said"), [("NULL", "Nobody makes machines for default"), ("10", "10 machines at most"), ("25", "")]
)
async def test_a_pool_that_does_not_become_as_large_is_told_of_when_it_is_scheduled(
    database: Database, owner: asyncpg.Connection, most: str, said: str
) -> None:
    await owner.execute(f"UPDATE pools SET max_machines = {most}")

    added = await lablink(database, "schedules", "add", "workshop", "--date", "2099-11-30", *WORKSHOP)

    assert said in added.stderr and bool(said) == bool(added.stderr)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--days", "mondays", *WORKSHOP), "is no day"),
        (WORKSHOP, "give days or a date"),
        (("--days", "mon", *WORKSHOP[:-1], "3000000000"), "less than or equal to 100000"),
        (("--days", "mon", *WORKSHOP, "--time-zone", "Berlin"), "no such time zone"),
        (("--days", "mon", "--from", "9:00", "--to", "9:00", "--machines", "1"), "begins and ends at different times"),
    ],
)
async def test_a_schedule_that_cannot_be_is_refused_with_what_to_write(
    database: Database, options: tuple[str, ...], said: str
) -> None:
    done = await lablink(database, "schedules", "add", "workshop", *options)

    assert done.returncode in (1, 2) and said in " ".join(done.stderr.split())


async def test_the_same_name_twice_is_refused(database: Database) -> None:
    for code in (0, 1):
        done = await lablink(database, "schedules", "add", "workshop", "--days", "mon", *WORKSHOP)
        assert done.returncode == code
    assert "lablink schedules remove workshop --pool default" in done.stderr

"""What is said of a pool's size: what is wanted, what hinders it, what comes next; more to admins than to holders."""

import asyncpg

from tests.sql.steps import BOB, ask, lent
from tests.sql.test_scaling import expired, invited, scale, sized
from tests.sql.test_schedules import schedule
from tests.support.database import Database


async def told(owner: asyncpg.Connection, of: str, name: object) -> dict[str, tuple[bool | None, str | None]]:
    """What is said of it."""
    rows = await owner.fetch(f"SELECT * FROM why_{of}($1)", name)
    return {row["what"]: (row["holds"], row["detail"]) for row in rows}


async def test_whoever_waits_is_told_that_machines_are_on_their_way(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await sized(owner, spare=0)
    await lent(database, service)
    lease = (await ask(service, BOB))["lease_id"]
    assert (await told(owner, "lease", lease))["machines can come"] == (True, "10 at a time, and a minute")
    await invited(owner, "vm-2")
    holds, detail = (await told(owner, "lease", lease))["its pool has the machines that are wanted"]
    assert not holds
    assert detail == "2 wanted, 0 to 10 allowed: 1 lent, 0 free or being cleaned, 1 on their way"


async def test_an_admin_is_told_what_to_do_about_machines_that_do_not_come_and_a_holder_that_one_looks(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await sized(owner, least=3)
    lease = (await ask(service, BOB))["lease_id"]
    await invited(owner, "vm-1", "vm-2", "vm-3")
    await scale(owner)
    await expired(owner)
    await scale(owner)
    pool, holder = await told(owner, "pool", "default"), await told(owner, "lease", lease)
    assert pool["machines can come"][0] is holder["machines can come"][0] is False
    assert "lablink pools resume default" in str(pool["machines can come"])
    assert "lablink" not in str(holder["machines can come"])


async def test_a_pool_at_its_most_says_so(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await sized(owner, least=2, most=2)
    await lent(database, service)
    await database.vm("vm-2")
    await owner.execute("UPDATE vms SET status = 'failed' WHERE hostname = 'vm-2'")
    assert "as many as there may be" in str((await told(owner, "pool", "default"))["machines can come"])


async def test_the_hours_are_told_before_and_while_they_are(database: Database, owner: asyncpg.Connection) -> None:
    await schedule(owner, days=["mon"], machines=25, ends_leases=True)
    await database.stand_at("2027-01-10 12:00+01")
    before = (await told(owner, "pool", "default"))["its hours"][1]
    await database.stand_at("2027-01-11 12:00+01")
    meanwhile = (await told(owner, "pool", "default"))["its hours"][1]
    assert before == "25 machines for workshop from Mon 11 Jan 09:00 until 18:00 (Europe/Berlin); leases end then"
    assert meanwhile == "25 machines for workshop until Mon 11 Jan 18:00 (Europe/Berlin); leases end then"


async def test_everybody_sees_that_more_machines_are_wanted_and_none_comes(owner: asyncpg.Connection) -> None:
    await sized(owner, least=4)
    row = await owner.fetchrow("SELECT wanted, missing, stopped, paused, hours FROM pool_status()")
    assert row is not None
    assert tuple(row) == (4, 4, False, False, None)


async def test_whoever_asks_how_pools_are_has_each_counted_once(database: Database, owner: asyncpg.Connection) -> None:
    await sized(owner, least=1)
    await owner.execute("INSERT INTO pools (name, max_machines) VALUES ('gpu', 3)")
    await owner.execute(
        "INSERT INTO pool_schedules (pool, name, days, starts_at, ends_at, machines)"
        " SELECT name, 'weekdays', '{mon}', '09:00', '18:00', 5 FROM pools"
    )
    superuser = await database.connect("postgres")
    async with superuser.transaction():
        await superuser.execute("SET LOCAL track_functions = 'all'")
        await superuser.execute("SELECT * FROM pool_status()")
        counted = await superuser.fetchval("SELECT pg_stat_get_xact_function_calls('size_of(text)'::regprocedure)")
    assert counted == 2

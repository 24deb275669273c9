"""What everybody is told of every pool is what admins are told of each, without what is not for everybody."""

import re

import asyncpg

from tests.sql.steps import ADA, BOB, ask, lent
from tests.sql.test_forecast import lasted
from tests.sql.test_scaling import sized
from tests.sql.test_why import Facts, why
from tests.support.database import Database

FAILED = (
    "INSERT INTO operations (kind, pool, status, finished_at, error)"
    " VALUES ('fleet grow', 'default', 'failed', clock(), 'UnauthorizedOperation: arn:aws:iam::1:role/x')"
)
FORETOLD = """
    INSERT INTO foretold SELECT id, assigned_at, assigned_at + interval '1 hour', assigned_at + interval '2 hours'
    FROM leases
"""


async def told(service: asyncpg.Connection) -> dict[str, Facts]:
    """What the service reads for everybody, of each pool."""
    pools: dict[str, Facts] = {}
    for row in await service.fetch("SELECT * FROM why_pools()"):
        pools.setdefault(row["pool"], {})[row["what"]] = (row["holds"], row["detail"])
    return pools


async def test_everybody_is_told_of_each_pool_what_admins_are_told(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await lasted(await database.connect("postgres"), *[10] * 20)
    await owner.execute(FORETOLD)
    await owner.execute("INSERT INTO pools (name) VALUES ('a'), ('gpu')")
    await sized(owner, least=3)
    await lent(database, service)
    await ask(service, BOB)
    await owner.execute("UPDATE pools SET paused = true WHERE name = 'gpu'")
    pools = await told(service)
    assert list(pools) == ["default", "a", "gpu"]
    for pool, facts in pools.items():
        for_admins = await why(owner, "pool", pool)
        assert list(facts) == list(for_admins) and list(facts)[-1] == "next"
        assert [holds for holds, _ in facts.values()] == [holds for holds, _ in for_admins.values()]
    assert "100 %" in str(pools["default"]["the times told of waits hold"])
    assert pools["default"]["nobody waits"] == (False, "1 person in line")
    assert pools["gpu"]["its pool is not paused"][0] is False


async def test_nobody_but_admins_reads_of_groups_amounts_errors_or_what_to_type(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await sized(owner, least=3)
    await lent(database, service)
    await ask(service, BOB)
    await owner.execute("INSERT INTO groups VALUES ('biology')")
    await owner.execute("INSERT INTO shares (pool, group_name) VALUES ('default', 'biology')")
    await owner.execute("UPDATE pools SET access = 'members', price_per_hour = 1, budget = 17")
    await owner.execute(FAILED)
    for_admins = str(await why(owner, "pool", "default"))
    facts = (await told(service))["default"]
    hidden = (ADA, BOB, "vm-1", "biology", "17", "USD", "arn:aws", "UnauthorizedOperation", "lablink")
    assert [each for each in hidden if each in for_admins] == [
        "biology",
        "17",
        "USD",
        "arn:aws",
        "UnauthorizedOperation",
    ]
    assert not any(each in str(facts) for each in hidden)
    assert facts["machines can come"] == (False, "not at the moment: an admin has to look")
    assert facts["everybody may ask"] == (False, "who is of a group that has a share in it may")
    await owner.execute("UPDATE pools SET budget = 1")
    holds, detail = (await told(service))["default"]["its budget allows another lease"]
    assert holds is False
    assert re.fullmatch(r"this month's is spent or promised; the next month begins in [\d.]+ \w+", str(detail))


async def test_of_a_budget_that_allows_more_only_admins_are_told(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE pools SET price_per_hour = 1, budget = 17")
    assert (await why(owner, "pool", "default"))["its budget allows another lease"][0]
    facts = (await told(service))["default"]
    assert "its budget allows another lease" not in facts
    assert facts["next"] == (None, "whoever asks is the first in line")
    await owner.execute("UPDATE pools SET budget = 1")
    assert "is refused until the budget allows" in str((await told(service))["default"]["next"])


async def test_however_many_pools_there_are_each_is_counted_once_and_what_was_foretold_is_read_once(
    database: Database, owner: asyncpg.Connection
) -> None:
    await owner.execute("INSERT INTO pools (name, max_machines) SELECT 'pool-' || n, 3 FROM generate_series(1, 9) AS n")
    superuser = await database.connect("postgres")
    await lasted(superuser, *[10] * 20)
    await owner.execute(FORETOLD)
    async with superuser.transaction():
        await superuser.execute(
            "SET LOCAL track_functions = 'all'; SET LOCAL enable_nestloop = off; SET LOCAL enable_mergejoin = off"
        )
        await superuser.execute("SELECT * FROM why_pools()")
        counted = await superuser.fetchval("SELECT pg_stat_get_xact_function_calls('size_of(text)'::regprocedure)")
        looks = await superuser.fetchval("SELECT pg_stat_get_xact_numscans('foretold'::regclass)")
    assert (counted, looks) == (9, 1)

"""How many machines a pool is to have, and which come and go for that."""

import json

import asyncpg
import pytest

from tests.sql.steps import ADA, BOB, CYD, ask, lent, machine, machines, refused, row_of, sha256
from tests.support.database import Database

SIZE = """
    UPDATE pools SET min_machines = $1, spare_machines = $2, max_machines = $3, shrink_after_seconds = $4,
                     boots_at_once = $5
    WHERE name = 'default'
"""
WANTED = "SELECT wanted_machines('default', size_of('default'))"
OURS = [f"vm-{n}" for n in range(1, 9)]


async def sized(
    owner: asyncpg.Connection,
    least: int = 0,
    spare: int = 1,
    most: int | None = 10,
    after: int = 600,
    at_once: int = 10,
) -> None:
    await owner.execute(SIZE, least, spare, most, after, at_once)


async def scale(owner: asyncpg.Connection) -> tuple[int, list[str]]:
    """How many are to come, and which are to go."""
    row = await owner.fetchrow("SELECT * FROM scale('default', $1)", OURS)
    assert row is not None
    return row["grow"], row["leaving"]


async def too_many_since(owner: asyncpg.Connection, seconds: float) -> None:
    """There have been too many for so much longer than is written down."""
    await owner.execute("UPDATE pool_scaling SET surplus_since = surplus_since - make_interval(secs => $1)", seconds)


async def invited(owner: asyncpg.Connection, *hostnames: str) -> None:
    for hostname in hostnames:
        await owner.execute("SELECT invite_vm($1, 'default', $2)", hostname, sha256(hostname))


async def expired(owner: asyncpg.Connection) -> None:
    """Nobody may come with an invitation of until now."""
    await owner.execute("UPDATE join_tokens SET expires_at = clock() - interval '1 second'")


async def test_a_pool_without_a_most_is_nobodys_to_change(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await sized(owner, most=None)
    await ask(service)
    assert await owner.fetchval(WANTED) is None
    assert await scale(owner) == (0, [])


async def test_as_many_are_wanted_as_are_lent_and_waited_for_and_spare_within_limits(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await sized(owner, least=0, spare=1, most=10)
    assert await owner.fetchval(WANTED) == 1
    await lent(database, service)
    assert await owner.fetchval(WANTED) == 2
    await ask(service, BOB)
    await ask(service, CYD)
    assert await owner.fetchval(WANTED) == 4
    await sized(owner, least=6)
    assert await owner.fetchval(WANTED) == 6
    await sized(owner, most=3)
    assert await owner.fetchval(WANTED) == 3


async def test_those_that_are_missing_are_begun_at_once_and_those_on_their_way_not_twice(
    database: Database, owner: asyncpg.Connection
) -> None:
    await sized(owner, least=3)
    assert await scale(owner) == (3, [])
    await invited(owner, "vm-1", "vm-2")
    await database.vm("vm-3", "booting")
    assert await scale(owner) == (0, [])
    await owner.execute("UPDATE vms SET status = 'failed' WHERE hostname = 'vm-3'")
    assert await scale(owner) == (1, [])


async def test_no_more_boot_at_a_time_and_are_begun_in_a_minute_than_may(
    database: Database, owner: asyncpg.Connection
) -> None:
    await database.stand_at("2027-01-11 12:00+00")
    await sized(owner, least=10, at_once=4)
    assert await scale(owner) == (4, [])
    assert await scale(owner) == (0, []), "they may have been begun"
    await owner.execute("UPDATE pool_scaling SET booked_until = booked_until - interval '30 seconds'")
    assert await scale(owner) == (2, [])
    await owner.execute("UPDATE pool_scaling SET booked_until = NULL")
    await invited(owner, "vm-1", "vm-2", "vm-3")
    assert await scale(owner) == (1, [])


async def test_machines_that_failed_count_among_all_that_there_may_be(
    database: Database, owner: asyncpg.Connection
) -> None:
    await sized(owner, least=3, most=3)
    await machines(database, 3)
    await owner.execute("UPDATE vms SET status = 'failed' WHERE hostname <> 'vm-1'")
    assert await scale(owner) == (0, [])


async def test_three_machines_that_do_not_come_stop_the_growth_until_one_comes_or_an_admin_says_so(
    database: Database, owner: asyncpg.Connection
) -> None:
    await sized(owner, least=8)
    for hostname in ("vm-1", "vm-2", "vm-3"):
        await owner.execute("UPDATE pool_scaling SET booked_until = NULL")
        await invited(owner, hostname)
        assert (await scale(owner))[0] > 0
        await expired(owner)
    assert (await scale(owner))[0] == 0
    alert = await owner.fetchval("SELECT detail FROM events WHERE kind = 'alert.boots'")
    assert json.loads(alert) == {"pool": "default", "failed": 3}
    assert "3 machines did not come" in await owner.fetchval("SELECT growth_stopped('default')")

    await owner.execute("SELECT pause_pool('default', false)")
    await owner.execute("UPDATE pool_scaling SET booked_until = NULL")
    assert (await scale(owner))[0] > 0
    await owner.execute("UPDATE pool_scaling SET failed_boots = 3")
    vm = await machine(database, "vm-8", "booting")
    await scale(owner)
    await vm.hello()
    await scale(owner)
    assert await owner.fetchval("SELECT failed_boots FROM pool_scaling") == 0


async def test_a_machine_that_an_admin_took_out_says_nothing_about_the_others(
    database: Database, owner: asyncpg.Connection
) -> None:
    await sized(owner, least=1, most=1)
    await database.vm("vm-1", "booting")
    await scale(owner)
    await owner.execute("SELECT retire_vm('vm-1')")
    await scale(owner)
    assert await owner.fetchval("SELECT failed_boots FROM pool_scaling") == 0


async def test_machines_that_an_admin_holds_do_not_stop_the_growth(
    database: Database, owner: asyncpg.Connection
) -> None:
    await sized(owner, least=4)
    for number in range(1, 4):
        await database.vm(f"vm-{number}", "booting")
    await scale(owner)
    await owner.execute("UPDATE vms SET status = 'failed', reason = 'I look at it'")
    assert (await scale(owner))[0] > 0
    assert await owner.fetchval("SELECT failed_boots FROM pool_scaling") == 0
    assert await owner.fetchval("SELECT growth_stopped('default')") is None


async def test_an_operation_on_another_pool_that_failed_says_nothing_about_this_one(owner: asyncpg.Connection) -> None:
    await sized(owner, least=1)
    await owner.execute("INSERT INTO pools (name) VALUES ('gpu')")
    await owner.execute(
        "INSERT INTO operations (kind, pool, status, finished_at, error)"
        " VALUES ('fleet grow', 'gpu', 'failed', clock(), 'too dear')"
    )
    assert await scale(owner) == (1, [])


async def test_where_making_machines_failed_it_is_tried_again_five_minutes_later(owner: asyncpg.Connection) -> None:
    await sized(owner, least=1)
    await owner.execute(
        "INSERT INTO operations (kind, pool, status, finished_at, error)"
        " VALUES ('fleet grow', 'default', 'failed', clock(), 'too dear')"
    )
    assert await scale(owner) == (0, [])
    assert "too dear; it is tried again in 5 min" in await owner.fetchval("SELECT growth_stopped('default')")
    await owner.execute("UPDATE operations SET finished_at = clock() - interval '6 minutes'")
    assert await scale(owner) == (1, [])


async def test_idle_machines_go_after_there_were_too_many_for_so_long(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await sized(owner)
    await machines(database, 4)
    await ask(service)
    assert await scale(owner) == (0, [])
    await too_many_since(owner, 540)
    assert await scale(owner) == (0, [])
    await too_many_since(owner, 60)
    grow, leaving = await scale(owner)
    assert (grow, len(leaving)) == (0, 2)
    assert await owner.fetchval("SELECT count(*) FROM vms WHERE draining AND status = 'available'") == 2
    assert await scale(owner) == (0, leaving), "until they are gone"
    await owner.fetchval("SELECT retire_idle_vms($1)", leaving)
    assert await scale(owner) == (0, [])


async def test_what_was_wanted_meanwhile_stays(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await sized(owner, spare=0)
    vms = await machines(database, 4)
    leases = [(await ask(service, person))["lease_id"] for person in (ADA, BOB)]
    await scale(owner)
    for lease in leases:
        await service.execute("SELECT end_lease($1)", lease)
    for vm in vms[:2]:
        await vm.clean()
    await scale(owner)
    await too_many_since(owner, 600)
    assert len((await scale(owner))[1]) == 2, "two of the four were lent in that time"
    await too_many_since(owner, 600)
    assert len((await scale(owner))[1]) == 4


async def test_who_fails_meanwhile_stops_no_shrinking(database: Database, owner: asyncpg.Connection) -> None:
    await sized(owner, least=3, spare=0)
    await machines(database, 4)
    await scale(owner)
    await owner.execute("UPDATE pools SET min_machines = 0; UPDATE vms SET status = 'failed' WHERE hostname < 'vm-3'")
    for going in (0, 2):
        await too_many_since(owner, 600)
        assert len((await scale(owner))[1]) == going


async def test_a_machine_that_was_to_go_is_lent_again_before_another_one_is_made(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await sized(owner, after=0)
    await machines(database, 3)
    _, leaving = await scale(owner)
    assert len(leaving) == 2
    await sized(owner, spare=3, after=0)
    assert await scale(owner) == (0, [])
    assert not await owner.fetchval("SELECT bool_or(draining) FROM vms")


async def test_only_what_the_asker_can_take_away_goes(database: Database, owner: asyncpg.Connection) -> None:
    await sized(owner, spare=0, after=0)
    await machines(database, 2)
    await owner.execute("INSERT INTO fleet_vms (hostname) VALUES ('vm-2')")
    row = await owner.fetchrow("SELECT * FROM scale('default')")
    assert row is not None
    assert row["leaving"] == ["vm-2"]


async def test_a_machine_that_somebody_got_by_hand_meanwhile_is_not_to_go(
    database: Database, owner: asyncpg.Connection
) -> None:
    await sized(owner, spare=0, after=0)
    await machine(database)
    assert await scale(owner) == (0, ["vm-1"])
    await owner.execute("UPDATE vms SET status = 'in-use'")
    assert await scale(owner) == (0, [])
    assert (await row_of(owner))["status"] == "in-use"


async def test_two_that_ask_at_the_same_moment_are_not_both_told(database: Database, owner: asyncpg.Connection) -> None:
    await sized(owner, least=2)
    await scale(owner)
    await owner.execute("UPDATE pool_scaling SET booked_until = NULL")
    other = await database.connect()
    async with other.transaction():
        assert (await scale(other))[0] == 2
        assert await scale(owner) == (0, [])


@pytest.mark.parametrize(
    "change", ["max_machines = -1", "spare_machines = -1", "boots_at_once = 0", "min_machines = 11"]
)
async def test_a_size_that_cannot_be_is_refused(owner: asyncpg.Connection, change: str) -> None:
    await sized(owner)
    with refused("23514"):
        await owner.execute(f"UPDATE pools SET {change}")


async def test_a_pool_that_is_scaled_no_more_lends_all_that_it_has(
    database: Database, owner: asyncpg.Connection
) -> None:
    await sized(owner, spare=0, after=0)
    await machines(database, 2)
    assert len((await scale(owner))[1]) == 2
    await sized(owner, most=None)
    assert not await owner.fetchval("SELECT bool_or(draining) FROM vms")


async def test_nothing_is_made_for_who_waits_for_their_group_or_for_the_month_to_be_over(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await sized(owner, spare=0)
    await owner.execute("INSERT INTO groups (name, max_live) VALUES ('lab', 1)")
    await owner.execute("INSERT INTO members (email, group_name) VALUES ($1, 'lab'), ($2, 'lab')", ADA, BOB)
    await lent(database, service)
    await ask(service, BOB)
    assert await owner.fetchval(WANTED) == 1
    await ask(service, CYD)
    assert await owner.fetchval(WANTED) == 2
    await owner.execute("UPDATE pools SET price_per_hour = 100, budget = 1")
    assert await owner.fetchval(WANTED) == 1

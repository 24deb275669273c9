"""Who may ask in a pool, and how many leases one person may have."""

import asyncpg
import pytest

from tests.sql.steps import ADA, BOB, CYD, ask, ask_together, asked, machines, refused
from tests.support.database import Database


async def test_a_pool_for_members_is_open_to_groups_that_have_a_share_in_it(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE pools SET access = 'members'")
    await owner.execute("INSERT INTO groups VALUES ('biology'), ('chemistry')")
    await owner.execute("INSERT INTO members VALUES ($1, 'biology'), ($2, 'chemistry')", ADA, BOB)
    await owner.execute("INSERT INTO shares (pool, group_name) VALUES ('default', 'biology')")
    assert (await ask(service, ADA.upper()))["outcome"] == "created"
    for email in (BOB, CYD):
        with refused("LL014"):
            await ask(service, email)
    answers = await ask_together(service, asked(ADA), asked(BOB))
    assert [answer["refused"] or answer["outcome"] for answer in answers] == ["live", "LL014"]


async def test_whoever_has_a_lease_is_shown_it_where_they_may_not_ask_any_more(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    first = await ask(service, ADA)
    await owner.execute("UPDATE pools SET access = 'members'")
    assert (await ask(service, ADA))["lease_id"] == first["lease_id"]


async def test_a_pool_may_let_each_have_several_machines_beside_the_one_of_all_others(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("INSERT INTO pools (name, per_person) VALUES ('gpu', 2)")
    first, second, third = [await ask(service, ADA, pool="gpu") for _ in range(3)]
    assert [answer["outcome"] for answer in (first, second, third)] == ["created", "created", "live"]
    assert third["lease_id"] in (first["lease_id"], second["lease_id"])
    assert [(await ask(service, ADA))["outcome"] for _ in range(2)] == ["created", "live"]
    await service.execute("SELECT end_lease($1)", first["lease_id"])
    assert (await ask(service, ADA, pool="gpu"))["outcome"] == "created"


async def outcomes(service: asyncpg.Connection, number: int, pool: str = "default") -> list[str]:
    """What becomes of so many requests of Ada, one after the other."""
    return [(await ask(service, ADA, pool=pool))["outcome"] for _ in range(number)]


@pytest.mark.parametrize("limit", [1, 2])
async def test_who_has_more_than_a_limit_that_was_lowered_opens_none_before_they_have_fewer(
    owner: asyncpg.Connection, service: asyncpg.Connection, limit: int
) -> None:
    await owner.execute("UPDATE pools SET per_person = 3")
    assert await outcomes(service, 3) == ["created"] * 3

    await owner.execute("UPDATE pools SET per_person = $1", limit)

    cancel_oldest = (
        "UPDATE leases SET status = 'cancelled' WHERE id = (SELECT id FROM leases WHERE live ORDER BY place LIMIT 1)"
    )
    for _ in range(3 - limit + 1):
        assert await outcomes(service, 1) == ["live"]
        await owner.execute(cancel_oldest)
    assert await outcomes(service, 2) == ["created", "live"]


async def test_several_leases_of_a_pool_that_now_allows_one_count_in_all_that_allow_one(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("INSERT INTO pools (name, per_person) VALUES ('gpu', 2)")
    await outcomes(service, 2, "gpu")

    await owner.execute("UPDATE pools SET per_person = 1")

    assert await outcomes(service, 1) == ["live"]


async def test_a_lease_counts_in_its_own_pool_where_each_may_have_more_now_and_in_no_other(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("INSERT INTO pools (name) VALUES ('gpu'), ('large')")
    assert await outcomes(service, 1, "gpu") == ["created"]

    await owner.execute("UPDATE pools SET per_person = 2 WHERE name = 'gpu'")

    assert await outcomes(service, 2, "gpu") == ["created", "live"]
    assert await outcomes(service, 2) == ["created", "live"]
    assert await outcomes(service, 1, "large") == ["live"]


async def test_one_person_s_two_requests_together_are_told_to_come_one_by_one(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE pools SET per_person = 2")
    answers = await ask_together(service, asked(ADA), asked(ADA))
    assert [answer["refused"] or answer["outcome"] for answer in answers] == ["created", "40001"]
    assert (await ask(service, ADA))["outcome"] == "created"


async def test_a_lease_with_a_machine_of_each_is_each_person_s_own(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE pools SET per_person = 3")
    await machines(database, 4)
    for _ in range(4):
        await ask(service, ADA)
    assert await owner.fetchval("SELECT count(DISTINCT vm_id) FROM leases WHERE live AND email = $1", ADA) == 3

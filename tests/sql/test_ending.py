"""How a lease ends by its person's will, who may look at it, and what the history tells."""

from uuid import uuid4

import asyncpg
import pytest

from tests.sql.steps import ADA, BOB, ask, lease_of, machine, refused, row_of, token_of
from tests.support.database import Database


async def test_ending_a_queued_request_cancels_it(owner: asyncpg.Connection, service: asyncpg.Connection) -> None:
    answer = await ask(service)

    assert await service.fetchval("SELECT end_lease($1)", answer["lease_id"]) == "cancelled"


@pytest.mark.parametrize("claimed", [False, True])
async def test_ending_a_lease_that_was_not_ready_cancels_it_and_cleans_the_machine(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, claimed: bool
) -> None:
    vm = await machine(database)
    answer = await ask(service)
    if claimed:
        await vm.claim(1)

    assert await service.fetchval("SELECT end_lease($1)", answer["lease_id"]) == "cancelled"

    row = await row_of(owner)
    assert (row["status"], row["epoch"], row["email"], row["lease_id"]) == ("cleaning", 2, None, None)


async def test_ending_an_active_lease_ends_it_and_the_next_person_gets_the_cleaned_machine(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    first = (await ask(service, ADA))["lease_id"]
    second = (await ask(service, BOB))["lease_id"]
    await vm.run()

    assert await service.fetchval("SELECT end_lease($1)", first) == "ended"
    await vm.clean()

    row = await row_of(owner)
    assert (row["status"], row["email"], row["lease_id"], row["epoch"]) == ("in-use", BOB, second, 3)


async def test_a_lease_that_is_over_stays_as_it_is(owner: asyncpg.Connection, service: asyncpg.Connection) -> None:
    answer = await ask(service)
    await service.execute("SELECT end_lease($1)", answer["lease_id"])
    before = await lease_of(owner, answer["lease_id"])

    again = await service.fetchval("SELECT end_lease($1)", answer["lease_id"])

    assert again == "cancelled"
    assert await lease_of(owner, answer["lease_id"]) == before
    with refused("LL003"):
        await owner.execute("UPDATE leases SET output = 'x' WHERE id = $1", answer["lease_id"])


async def test_ending_a_lease_that_is_not_there_is_refused(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    with refused("LL004"):
        await service.execute("SELECT end_lease($1)", uuid4())


async def test_a_lease_is_shown_to_who_brings_its_token_only(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    answer = await ask(service, ADA)

    question, lease = "SELECT id FROM opened_leases($1, $2)", answer["lease_id"]
    tokens = token_of(ADA), token_of(BOB), None
    mine, others, nobodys = [await service.fetch(question, [lease], [token]) for token in tokens]

    assert [row["id"] for row in mine] == [lease]
    assert others == nobodys == []


async def test_every_step_of_a_lease_is_in_the_history_with_who_did_it(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    answer = await ask(service)
    await vm.run()
    await service.execute("SELECT end_lease($1)", answer["lease_id"])

    query = "SELECT kind, actor, db_role FROM events WHERE lease_id = $1 ORDER BY id"
    rows = await owner.fetch(query, answer["lease_id"])

    role = vm.vm.role
    assert [tuple(row) for row in rows] == [
        ("lease.assigned", "web", "lablink_app"),
        ("vm.in-use", "web", "lablink_app"),
        ("lease.claimed", "vm-1", role),
        ("lease.active", "vm-1", role),
        ("lease.ended", "web", "lablink_app"),
        ("vm.cleaning", "web", "lablink_app"),
    ]

"""Where groups compete, whoever waits is told of those who come later and are before them."""

from typing import Any

import asyncpg
import pytest

from tests.sql.steps import ask, lease_of, machine, machines
from tests.support.database import Database

TURNS = "SELECT email, position, likely, sure FROM queue_turns q JOIN leases l USING (id) ORDER BY position"
TOLD = """
    SELECT ceil(extract(epoch FROM likely - at)), ceil(extract(epoch FROM sure - at)) FROM foretold WHERE lease_id = $1
"""
WAITS = "SELECT position, eta_seconds, eta_p90_seconds FROM lease_views WHERE id = $1"


@pytest.fixture(autouse=True)
async def groups(database: Database, owner: asyncpg.Connection) -> None:
    """Biology and chemistry, ten members each, and leases of ten minutes; no time passes between two looks."""
    await database.stop_clock()
    await owner.execute("UPDATE pools SET lease_seconds = 600")
    await owner.execute("INSERT INTO groups VALUES ('biology'), ('chemistry')")
    await owner.execute(
        "INSERT INTO members SELECT g || n || '@example.org', CASE g WHEN 'b' THEN 'biology' ELSE 'chemistry' END "
        "FROM unnest(ARRAY['b', 'c']) AS g, generate_series(0, 9) AS n"
    )


async def ask_all(service: asyncpg.Connection, names: str) -> list[Any]:
    return [(await ask(service, f"{name}@example.org"))["lease_id"] for name in names.split()]


async def turns(service: asyncpg.Connection, owner: asyncpg.Connection) -> dict[str, tuple[int, int, int]]:
    """Position of everybody who waits, and after how many machines it is their turn, once a forecast was made."""
    await service.execute("SELECT sweep_forecasts()")
    return {email.split("@")[0]: tuple(rest) for email, *rest in await owner.fetch(TURNS)}


async def test_as_many_of_another_group_are_taken_to_come_as_did_where_it_has_fewer_machines(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await machines(database, 4)
    await ask_all(service, "b0 b1 b2 b3 b4 b5 c0")
    assert await turns(service, owner) == {"c0": (1, 1, 1), "b4": (2, 3, 4), "b5": (3, 4, 6)}


async def test_no_more_of_them_are_than_its_turn_allows(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await machines(database, 2)
    await ask_all(service, "b0 b1 b2 c0 c1 c2 c3")
    assert (await turns(service, owner))["b2"] == (3, 3, 4)


async def test_inside_a_group_that_is_alone_and_without_groups_nobody_passes_by(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await machine(database)
    leases = await ask_all(service, "b0 b1 b2")
    assert await turns(service, owner) == {"b1": (1, 1, 1), "b2": (2, 2, 2)}
    for lease in leases:
        await service.execute("SELECT end_lease($1)", lease)
    await ask_all(service, "x0 x1")
    assert await turns(service, owner) == {"x0": (1, 1, 1), "x1": (2, 2, 2)}


async def test_whoever_lost_a_machine_is_before_all_who_come(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await machines(database, 2)
    moves, *_ = await ask_all(service, "b0 b1 c0")
    await owner.execute("UPDATE leases SET status = 'queued' WHERE id = $1", moves)
    assert (await lease_of(owner, moves))["moves"] == 1
    assert (await turns(service, owner))["b0"] == (1, 1, 1)


async def test_the_page_what_is_written_down_and_why_go_by_the_same_turn(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await machines(database, 4)
    *_, last, first = await ask_all(service, "b0 b1 b2 b3 b4 b5 c0")
    await service.execute("SELECT sweep_forecasts()")
    [(position, likely, sure)] = await service.fetch(WAITS, last)
    [(_, _, at_first)] = await service.fetch(WAITS, first)
    [told] = await owner.fetch(TOLD, last)
    words = "SELECT detail FROM why_lease($1) WHERE what = 'next'"
    by_position = await owner.fetchval("SELECT comes_in_words('default', 3)")
    assert position == 3
    assert tuple(told) == (likely, sure)
    assert sure > likely > at_first
    assert await owner.fetchval("SELECT comes_in_words('default', 4, 6)") in await owner.fetchval(words, last)
    assert by_position not in await owner.fetchval(words, last)


async def test_why_a_pool_says_when_the_last_in_line_has_a_machine_by_the_turn(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await machines(database, 4)
    await ask_all(service, "b0 b1 b2 b3 b4 b5 c0")
    await service.execute("SELECT sweep_forecasts()")
    words = await owner.fetchval("SELECT detail FROM why_pool('default') WHERE what = 'next'")
    assert words.endswith("; the last " + await owner.fetchval("SELECT comes_in_words('default', 4, 6)"))

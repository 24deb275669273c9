"""Whoever asks together with others is answered as if all had asked one after the other, in pools of every kind."""

import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager

import asyncpg
import pytest
import pytest_asyncio

from tests.sql.steps import ask_together, asked
from tests.support.database import free_machines

MACHINES, WORLDS = 12, 20
POOLS = ("default", "members", "money", "paused", "nowhere")
PEOPLE = [f"p{n:02}@example.org" for n in range(40)]
COURSE = PEOPLE[:10]
"""They are of one group: where several ask, shares count and not who came first."""

WORLD = """
    INSERT INTO pools (name, programs) VALUES ('members', '{echo}'), ('money', '{echo}'), ('paused', '{echo}');
    UPDATE pools SET programs = '{echo}', accepts_desktop = name = 'default', lease_seconds = 3600,
        paused = name = 'paused', access = CASE WHEN name = 'members' THEN 'members' ELSE 'open' END;
    UPDATE pools SET price_per_hour = 1, currency = 'EUR', budget = 4 WHERE name = 'money';
    INSERT INTO groups (name) VALUES ('course');
    INSERT INTO shares (pool, group_name) VALUES ('members', 'course')
"""
BECAME = """
    SELECT pool, status, array_agg(email ORDER BY CASE WHEN status = 'queued' THEN place ELSE 0 END, email) AS people
    FROM leases WHERE live GROUP BY pool, status ORDER BY pool, status
"""

Request = tuple[object, ...]
Asks = Callable[[asyncpg.Connection, Sequence[Request]], Coroutine[None, None, list[str]]]


@pytest_asyncio.fixture
async def world(owner: asyncpg.Connection) -> asyncpg.Connection:
    """The owner of a database with a pool of each kind, and free machines."""
    await owner.execute(WORLD)
    await owner.executemany("INSERT INTO members VALUES ($1, 'course')", [(email,) for email in COURSE])
    await free_machines(owner, MACHINES)
    return owner


def request(dice: random.Random, email: str) -> Request:
    """What somebody may ask, with nothing wrong or with one thing or another."""
    pool = dice.choice(("members",) if email in COURSE else POOLS)
    argv = dice.choice((["echo"], ["echo"], ["echo"], ["rm"], None))
    key = dice.choice((None, f"key of {email}"))
    return asked(email, argv=argv, key=key, request=dice.choice(("one", "another")), pool=pool)


async def alone(owner: asyncpg.Connection, requests: Sequence[Request]) -> list[str]:
    """What each is told who asks when those before have been answered."""
    return [said for each in requests for said in _told(await ask_together(owner, each))]


async def together(owner: asyncpg.Connection, requests: Sequence[Request]) -> list[str]:
    """What they are told who ask at once; who is told to come alone does, as the service does it for them."""
    told = _told(await ask_together(owner, *requests))
    return [
        (await alone(owner, [each]))[0] if said == "40001" else said for said, each in zip(told, requests, strict=True)
    ]


def _told(answers: Sequence[asyncpg.Record]) -> list[str]:
    return [answer["refused"] or answer["outcome"] for answer in answers]


@asynccontextmanager
async def undone(owner: asyncpg.Connection) -> AsyncIterator[None]:
    """What happens in the block has not happened."""
    transaction = owner.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()


async def became(owner: asyncpg.Connection, asks: Asks, requests: Sequence[Request]) -> tuple[list[str], object]:
    """What they were told, and who has a machine or waits then, in which order."""
    async with undone(owner):
        return await asks(owner, requests), [tuple(row) for row in await owner.fetch(BECAME)]


@pytest.mark.parametrize("seed", range(WORLDS))
async def test_together_they_are_told_and_get_what_they_would_one_after_the_other(
    world: asyncpg.Connection, seed: int
) -> None:
    dice = random.Random(seed)
    async with undone(world):
        await world.execute("UPDATE vms SET pool = ($1::text[])[1 + id % 4]", dice.sample(POOLS[:4], 4))
        for each in dice.sample(PEOPLE, dice.randint(0, 12)):
            await alone(world, [request(dice, each)])
        requests = [request(dice, each) for each in dice.sample(PEOPLE, dice.randint(2, 24))]
        assert await became(world, together, requests) == await became(world, alone, requests)

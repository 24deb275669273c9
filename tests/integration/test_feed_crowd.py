"""Many open pages: who is not concerned by a change is not looked at, and what all share is looked at now and then."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from allocator.connection import connector
from allocator.feed import Feed
from allocator.standing import PLACES
from allocator.subscriptions import Subscription
from allocator.tasks import alongside
from allocator.views import LeaseView
from tests.support import LIMIT_SECONDS
from tests.support.database import Database
from tests.support.service import settings_for
from tests.support.wire import Wire

BURST = 100
UNHEARD = "UPDATE leases SET output = 'unheard', version = version + 1 WHERE id = $1"
IN_THE_WAY = """
    CREATE FUNCTION met() RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
    DECLARE
        times integer := (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid());
    BEGIN
        IF times < 3 THEN
            PERFORM pg_advisory_lock(times);
            RAISE deadlock_detected;
        END IF;
        RETURN true;
    END $$;
    ALTER VIEW lease_views RENAME TO lease_views_in_peace;
    CREATE VIEW lease_views AS SELECT * FROM lease_views_in_peace WHERE met();
    GRANT SELECT ON lease_views TO lablink_app;
    GRANT EXECUTE ON FUNCTION met TO lablink_app;
"""
"""Whoever looks at leases meets another change three times over each connection, also where nothing may be written."""


async def queue(owner: asyncpg.Connection, name: str) -> str:
    """A lease that waits."""
    return str(
        await owner.fetchval("INSERT INTO leases (email, kind) VALUES ($1, 'job') RETURNING id", f"{name}@example.org")
    )


@pytest_asyncio.fixture
async def over(owner: asyncpg.Connection) -> str:
    """A lease that was over before anybody listened."""
    lease = await queue(owner, "over")
    await owner.execute("SELECT end_lease($1)", lease)
    return lease


@pytest_asyncio.fixture
async def feed(database: Database, tmp_path: Path) -> AsyncIterator[Feed]:
    """A feed that is listening, and reads nothing again unless it hears of it."""
    feed = Feed(connector(settings_for(database, tmp_path).database, "web"), "default", check_seconds=3600)
    async with alongside(feed.run()), asyncio.timeout(LIMIT_SECONDS):
        await feed.listening.wait()
        yield feed


async def told(news: AsyncIterator[object]) -> LeaseView:
    """The next news of a lease."""
    lease = await anext(news)
    assert isinstance(lease, LeaseView)
    return lease


async def told_at_last(news: AsyncIterator[object]) -> LeaseView:
    """The same, where the database may be away for a moment."""
    while not isinstance(lease := await anext(news), LeaseView):
        pass
    return lease


async def test_a_burst_of_changes_makes_nobody_look_whom_none_of_them_is_about(
    database: Database, over: str, feed: Feed, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allocator.feed.Subscription", partial(Subscription, 0.5))
    superuser, other = await database.connect("postgres"), await queue(owner, "other")
    with feed.subscribe(UUID(over)) as unconcerned, feed.subscribe(UUID(other)) as concerned:
        first, second = aiter(unconcerned), aiter(concerned)
        await told(first)
        await told(second)
        await superuser.execute("SET session_replication_role = replica")
        await superuser.execute(UNHEARD, over)

        for _ in range(BURST):
            await owner.execute("SELECT pg_notify('lease_updates', format('[{\"id\": \"%s\"}]', gen_random_uuid()))")
        await owner.execute("SELECT end_lease($1)", other)
        while (await told(second)).live:
            pass

        assert (await told(first)).output is None


async def test_of_many_pages_each_is_looked_at_by_and_by(
    database: Database, owner: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allocator.feed.AT_ONCE", 2)
    feed = Feed(connector(settings_for(database, tmp_path).database, "web"), "default", check_seconds=0.2)
    leases, superuser = [await queue(owner, f"p{n}") for n in range(7)], await database.connect("postgres")
    async with alongside(feed.run()), asyncio.timeout(LIMIT_SECONDS), AsyncExitStack() as pages:
        await feed.listening.wait()
        open_pages = [aiter(pages.enter_context(feed.subscribe(UUID(lease)))) for lease in leases]
        assert {(await told_at_last(page)).position for page in open_pages} == set(range(1, 8))
        await superuser.execute("SET session_replication_role = replica")
        await superuser.execute("UPDATE leases SET output = 'unheard', version = version + 1")

        for page in open_pages:
            while (await told_at_last(page)).output != "unheard":
                pass


async def test_places_are_told_now_and_then_when_many_wait_and_what_happens_to_oneself_at_once(
    feed: Feed, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after, mine = await queue(owner, "before"), await queue(owner, "after"), await queue(owner, "mine")
    with feed.subscribe(UUID(mine)) as subscription:
        news = aiter(subscription)
        assert (await told(news)).position == 3
        monkeypatch.setattr("allocator.feed.PAGE_SECONDS", 3600)
        await owner.execute("SELECT end_lease($1)", before)
        while (await told(news)).position != 2:
            pass
        for word in ("once", "twice"):  # whatever was heard before that has been looked at then
            await say(owner, mine, word)
            await until_said(news, word)

        await owner.execute("SELECT end_lease($1)", after)
        assert (await told(news)).position == 2
        await say(owner, mine, "heard")
        assert (await until_said(news, "heard")).position == 1


async def test_whose_page_was_closed_while_it_was_read_is_not_looked_for_in_the_queue_for_ever(
    database: Database,
    wire: Wire,
    over: str,
    owner: asyncpg.Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("allocator.connection.LIMITS", {"lock_timeout": "0", "statement_timeout": "0"})
    monkeypatch.setattr("allocator.connection.COMMAND_SECONDS", LIMIT_SECONDS)
    feed = Feed(connector(settings_for(database, tmp_path, wire=wire).database, "web"), "default", check_seconds=3600)
    waits, locker = await queue(owner, "waits"), await database.connect()
    held_up = (
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database())"
    )
    async with alongside(feed.run()), asyncio.timeout(LIMIT_SECONDS):
        await feed.listening.wait()
        with feed.subscribe(UUID(over)) as subscription:
            news = aiter(subscription)
            await told(news)
            async with locker.transaction():
                await locker.execute("LOCK TABLE leases")
                with feed.subscribe(UUID(waits)):
                    while not await owner.fetchval(held_up):
                        pass
            await hint_at(owner, over)
            await told(news)

            look = wire.lose("request", PLACES)
            for _ in range(2):  # the places are looked at with the first, or before the second
                await hint_at(owner, over)
                await told(news)

    assert not look.happened.is_set()


async def hint_at(owner: asyncpg.Connection, lease: str) -> None:
    """Something may have happened to this lease."""
    await owner.execute("SELECT pg_notify('lease_updates', format('[{\"id\": \"%s\"}]', $1::text))", lease)


async def say(owner: asyncpg.Connection, lease: str, word: str) -> None:
    """Something happens to this lease."""
    await owner.execute("UPDATE leases SET output = $2 WHERE id = $1", lease, word)


async def until_said(news: AsyncIterator[object], word: str) -> LeaseView:
    """The first news that tell of it."""
    while (lease := await told(news)).output != word:
        pass
    return lease


async def test_a_page_is_not_told_that_the_database_is_away_when_a_look_meets_another_change(
    feed: Feed, owner: asyncpg.Connection
) -> None:
    lease = await queue(owner, "ada")
    await owner.execute(IN_THE_WAY)
    with feed.subscribe(UUID(lease)) as subscription:
        assert (await told(aiter(subscription))).position == 1


async def test_nor_is_one_that_waits_when_a_look_at_the_queue_does(feed: Feed, owner: asyncpg.Connection) -> None:
    first, second = await queue(owner, "first"), await queue(owner, "second")
    with feed.subscribe(UUID(second)) as subscription:
        news = aiter(subscription)
        assert (await told(news)).position == 2
        await owner.execute(IN_THE_WAY)
        await owner.execute("SELECT end_lease($1)", first)
        while (await told(news)).position == 2:
            pass

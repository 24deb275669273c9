"""The feed tells open pages what changed, whatever happens to notifications and connections on the way."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest
import pytest_asyncio

from allocator.connection import connector
from allocator.feed import HEARD_BYTES, Feed
from allocator.pool_views import Counts
from allocator.standing import LEASE_CHANNEL
from allocator.subscriptions import POOL, News, Subscription
from allocator.tasks import alongside
from allocator.views import LeaseView
from client.protocol import CHANNEL
from tests.support import LIMIT_SECONDS
from tests.support.database import Database
from tests.support.service import RunningService, settings_for, streaming
from tests.support.wire import Wire

Connection = asyncpg.Connection
UNHEARD = "UPDATE leases SET output = 'unheard', version = version + 1 WHERE id = $1"


@pytest_asyncio.fixture
async def feed(database: Database, wire: Wire, tmp_path: Path) -> AsyncIterator[Feed]:
    """A feed that is listening."""
    feed = Feed(connector(settings_for(database, tmp_path, wire=wire).database, "web"), "default")
    async with alongside(feed.run()):
        await feed.listening.wait()
        yield feed


async def queue(owner: Connection, name: str = "ada") -> LeaseView:
    """A lease that waits, as the database has it."""
    await owner.execute("INSERT INTO leases (email, kind) VALUES ($1, 'job')", f"{name}@example.org")
    row = await owner.fetchrow(
        "SELECT *, clock() AS now FROM lease_views WHERE email = $1 ORDER BY created_at DESC", f"{name}@example.org"
    )
    assert row is not None
    return LeaseView.of(dict(row))


async def news(subscription: Subscription) -> News:
    """The next thing that the subscriber is told."""
    async with asyncio.timeout(LIMIT_SECONDS):
        return await anext(aiter(subscription))


async def lease_news(subscription: Subscription) -> LeaseView:
    """The next news of a lease; word of a lost database is passed over."""
    while not isinstance(told := await news(subscription), LeaseView):
        pass
    return told


async def until_told(subscription: Subscription, wanted: Callable[[LeaseView], bool]) -> None:
    """Return when the subscriber is told that. What was heard late may have it told of how it was once more."""
    while not wanted(await lease_news(subscription)):
        pass


async def until_lost(subscription: Subscription) -> None:
    """Return when the subscriber is told that the database is away."""
    while await news(subscription) is not None:
        pass


@asynccontextmanager
async def counted(owner: Connection) -> AsyncIterator[list[str]]:
    """The payloads of the notifications that come meanwhile."""
    heard: list[str] = []
    await owner.add_listener(LEASE_CHANNEL, lambda *notice: heard.append(str(notice[-1])))
    yield heard


async def test_a_subscriber_is_told_how_it_is_and_then_what_changes(feed: Feed, owner: Connection) -> None:
    lease = await queue(owner)
    with feed.subscribe(lease.id) as subscription:
        assert (await lease_news(subscription)).status == "queued"
        await owner.execute("UPDATE leases SET status = 'cancelled' WHERE id = $1", lease.id)
        await until_told(subscription, lambda lease: lease.status == "cancelled")


async def test_everybody_who_waits_is_told_when_somebody_leaves_the_queue(feed: Feed, owner: Connection) -> None:
    first, second = await queue(owner, "first"), await queue(owner, "second")
    with feed.subscribe(second.id) as subscription:
        assert (await lease_news(subscription)).position == 2
        await owner.execute("SELECT end_lease($1)", first.id)
        await until_told(subscription, lambda lease: lease.position == 1)


@pytest.mark.parametrize("payload", ["", "{", "[]", "null", '{"id": 1}', '[{"id": "x"}]', "[" * 3000, '[["x"]]'])
async def test_garbage_on_the_channel_makes_it_look_and_nothing_else(
    feed: Feed, owner: Connection, payload: str
) -> None:
    lease = await queue(owner)
    with feed.subscribe(lease.id) as subscription:
        before = await lease_news(subscription)
        await owner.execute("SELECT pg_notify($1, $2)", LEASE_CHANNEL, payload)
        await owner.execute("SELECT pg_notify($1, $2)", CHANNEL, payload)
        await owner.execute("UPDATE leases SET status = 'cancelled' WHERE id = $1", lease.id)
        after = await lease_news(subscription)
        while after.version == before.version:
            after = await lease_news(subscription)

    assert after.status == "cancelled"


async def test_a_forged_change_is_not_believed(feed: Feed, owner: Connection) -> None:
    lease = await queue(owner)
    with feed.subscribe(lease.id) as subscription:
        await lease_news(subscription)
        forged = f'[{{"id": "{lease.id}", "status": "active"}}]'
        await owner.execute("SELECT pg_notify($1, $2)", LEASE_CHANNEL, forged)

        assert (await lease_news(subscription)).status == "queued"


async def test_after_a_lost_connection_everything_is_read_again(feed: Feed, wire: Wire, owner: Connection) -> None:
    lease = await queue(owner)
    with feed.subscribe(lease.id) as subscription, feed.subscribe(POOL) as pool:
        await lease_news(subscription)
        await news(pool)
        with wire.down():
            await until_lost(subscription)
            await owner.execute("UPDATE leases SET status = 'cancelled' WHERE id = $1", lease.id)

        assert (await lease_news(subscription)).status == "cancelled"
        while not isinstance(await news(pool), Counts):
            pass


async def test_a_connection_that_is_cut_again_and_again_converges(feed: Feed, wire: Wire, owner: Connection) -> None:
    lease = await queue(owner)
    with feed.subscribe(lease.id) as subscription:
        for number in range(5):
            wire.cut()
            await owner.execute("UPDATE leases SET output = $2 WHERE id = $1", lease.id, f"{number}")
        told = await lease_news(subscription)
        while told.output != "4":
            told = await lease_news(subscription)


async def test_a_terminated_backend_is_replaced(feed: Feed, database: Database, owner: Connection) -> None:
    lease = await queue(owner)
    superuser = await database.connect("postgres")
    with feed.subscribe(lease.id) as subscription:
        await lease_news(subscription)
        await superuser.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'lablink web' AND datname = current_database()"
        )
        await until_lost(subscription)
        await owner.execute("UPDATE leases SET status = 'cancelled' WHERE id = $1", lease.id)

        await until_told(subscription, lambda lease: lease.status == "cancelled")


async def test_lost_notifications_and_a_dead_peer_are_noticed_by_the_check(
    database: Database, wire: Wire, owner: Connection, tmp_path: Path
) -> None:
    connect = connector(settings_for(database, tmp_path, wire=wire).database, "web")
    feed = Feed(connect, "default", check_seconds=0.2)
    lease = await queue(owner)
    async with alongside(feed.run()):
        await feed.listening.wait()
        with feed.subscribe(lease.id) as subscription:
            await lease_news(subscription)
            wire.drops_notifications = True
            await owner.execute(UNHEARD, lease.id)
            while (await lease_news(subscription)).output != "unheard":
                pass
            wire.stalls = True
            await until_lost(subscription)
            wire.stalls = False
            await owner.execute("UPDATE leases SET status = 'cancelled' WHERE id = $1", lease.id)
            while (await lease_news(subscription)).status != "cancelled":
                pass


async def test_steady_traffic_does_not_keep_a_lost_notification_from_being_made_up_for(
    database: Database, owner: Connection, tmp_path: Path
) -> None:
    connect = connector(settings_for(database, tmp_path).database, "web")
    feed = Feed(connect, "default", check_seconds=0.2)
    lease, superuser = await queue(owner), await database.connect("postgres")
    async with alongside(feed.run()), alongside(_chatter(database)):
        await feed.listening.wait()
        with feed.subscribe(POOL), feed.subscribe(lease.id) as subscription:
            await lease_news(subscription)
            await superuser.execute("SET session_replication_role = replica")
            await superuser.execute(UNHEARD, lease.id)
            while (await lease_news(subscription)).output != "unheard":
                pass


async def test_a_flood_of_payloads_is_not_read_but_everything_is_looked_at(
    database: Database, owner: Connection, tmp_path: Path
) -> None:
    feed = Feed(connector(settings_for(database, tmp_path).database, "web"), "default", check_seconds=3600)
    lease, superuser = await queue(owner), await database.connect("postgres")
    flood = 'SELECT pg_notify($1, format(\'[{"id": "%s"}]\', gen_random_uuid())) FROM generate_series(0, $2 / 100)'
    await owner.execute("SELECT end_lease($1)", lease.id)
    async with alongside(feed.run()), asyncio.timeout(LIMIT_SECONDS):
        await feed.listening.wait()
        with feed.subscribe(lease.id) as subscription:
            await lease_news(subscription)
            await superuser.execute("SET session_replication_role = replica")
            await superuser.execute(UNHEARD, lease.id)
            await owner.execute(flood, LEASE_CHANNEL, HEARD_BYTES)
            while (await lease_news(subscription)).output != "unheard":
                await owner.execute(flood, LEASE_CHANNEL, HEARD_BYTES)


async def _chatter(database: Database) -> None:
    """Notifications of machines without end."""
    connection = await database.connect()
    while True:
        await connection.execute("SELECT pg_notify($1, '[]')", CHANNEL)


async def test_a_burst_of_changes_is_read_in_a_few_looks(
    feed: Feed, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allocator.feed.PACE_SECONDS", 0.5)  # the burst may take many of the usual pace
    leases = [await queue(owner, f"p{number}") for number in range(20)]
    looks = 0
    with feed.subscribe(leases[0].id) as subscription:
        await lease_news(subscription)
        async with counted(owner) as heard:
            for lease in leases[1:]:
                await owner.execute("UPDATE leases SET status = 'cancelled' WHERE id = $1", lease.id)
            await owner.execute("UPDATE leases SET output = 'last' WHERE id = $1", leases[0].id)
            told = await lease_news(subscription)
            while told.output != "last":
                looks += 1
                told = await lease_news(subscription)

    assert len(heard) == 20
    assert looks < 10


async def test_whoever_subscribes_while_the_database_is_away_is_told_so_and_then_the_news(
    feed: Feed, wire: Wire, owner: Connection
) -> None:
    lease = await queue(owner)
    with wire.down():
        with feed.subscribe(lease.id) as first:
            assert await news(first) is None or not feed.listening.is_set()
        subscription = feed.subscribe(lease.id)
        with subscription as second:
            assert await news(second) is None
            wire.refuses = False
            assert (await lease_news(second)).status == "queued"


async def test_a_page_that_is_closed_is_forgotten(service: RunningService, client: httpx.AsyncClient) -> None:
    async with streaming(client, "/stream") as stream:
        await stream.next("pool")
        assert service.service.feed.subscribers == 1

    async with asyncio.timeout(LIMIT_SECONDS):
        while service.service.feed.subscribers:
            await client.get("/livez")


async def test_a_page_is_told_the_same_again_when_there_is_no_news() -> None:
    subscription = Subscription(beat_seconds=0.01)
    subscription.tell(Counts(1, 2, 3, 4))

    told = aiter(subscription)

    assert [await anext(told) for _ in range(3)] == [Counts(1, 2, 3, 4)] * 3


async def test_after_the_end_nobody_is_kept_waiting(feed: Feed) -> None:
    with feed.subscribe(POOL) as early:
        feed.end_streams()
        assert [told async for told in early] == []
    with feed.subscribe(POOL) as late:
        assert [told async for told in late] == []

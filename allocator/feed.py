"""Tells open pages what changed: one listening connection, one query a wake-up, however many pages there are.

A notification is a reason to read, never the news itself: anyone who can connect may forge one, and one may be lost.
So everything that is subscribed is read again after each (re)connect, and at least every CHECK_SECONDS.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import islice
from uuid import UUID

import structlog

from allocator import standing
from allocator.connection import Connect
from allocator.errors import Conflict, ServiceError
from allocator.sqlstates import translated
from allocator.standing import AT_ONCE, LEASE_CHANNEL
from allocator.subscriptions import PAGE_SECONDS, POOL, POOLS, News, Rounds, Subscription, Topic
from allocator.views import LeaseView
from client.network import Connection

CHECK_SECONDS = 10.0
PACE_SECONDS = 0.05
"""The least time between two looks, so that a flood of notifications does not become a flood of queries."""

HEARD_BYTES = 100_000
"""How much is read of notifications between two looks, 100 more of each; after more, all is looked at instead."""

BACK_OFF_SECONDS = (0.5, 10.0)

log = structlog.get_logger()

Heard = Callable[[int, str, str], object]
"""Is told of every notification whose session's it is, its channel and its payload."""


class Feed:
    """Who is subscribed to what, and the connection that hears what they should be told."""

    def __init__(
        self,
        connect: Connect,
        pool: str,
        heard: Heard = lambda pid, channel, payload: None,
        check_seconds: float = CHECK_SECONDS,
        missed: Callable[[], object] = lambda: None,
    ) -> None:
        self._connect = connect
        self._pool = pool
        self._tell_heard = heard
        self._tell_missed = missed
        self._check_seconds = check_seconds
        self._subscriptions: dict[Topic, set[Subscription]] = {}
        self._queued: set[UUID] = set()
        self._stale: set[Topic] = set()
        self._unsure: set[Topic] = set()
        self._places_changed = False
        self._rounds = Rounds()
        self._heard = 0
        self._due: asyncio.TimerHandle | None = None
        self._shared_at = 0.0
        self._wake = asyncio.Event()
        self._over = False
        self.listening = asyncio.Event()
        """Set while changes are heard."""

    @property
    def subscribers(self) -> int:
        """How many pages are open."""
        return sum(map(len, self._subscriptions.values()))

    @contextmanager
    def subscribe(self, topic: Topic) -> Iterator[Subscription]:
        """The news of a topic, beginning with how it is now, until the block ends."""
        subscription = Subscription()
        self._subscriptions.setdefault(topic, set()).add(subscription)
        try:
            if self._over:
                subscription.end()
            elif self.listening.is_set():
                self._look_at({topic})
            else:
                subscription.tell(None)
            yield subscription
        finally:
            self._forget(topic, subscription)

    def end_streams(self) -> None:
        """Let the stream of every page end, also of those that come: they would keep the service from stopping."""
        self._over = True
        for subscription in self._everybody():
            subscription.end()

    async def run(self) -> None:
        """Listen and tell, for ever; a database that goes away is waited for."""
        tries = 0
        while True:
            try:
                async with self._listening() as connection:
                    tries = 0
                    await self._follow(connection)
            except ServiceError as error:
                if tries == 0:
                    log.warning("feed.lost", error=type(error).__name__, why=error.why)
            except Exception:  # the outermost loop: pages must not go stale for good
                log.exception("feed.failed")
            first, most = BACK_OFF_SECONDS
            await asyncio.sleep(random.uniform(0, min(most, first * 2.0**tries)))
            tries = min(tries + 1, 10)

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[Connection]:
        """A connection that hears changes from before anything is read over it."""
        with translated():
            connection = await self._connect()
            try:
                connection.add_termination_listener(lambda _connection: self._wake.set())
                await standing.listen(connection, self._hear)
                self.listening.set()
                self._tell_missed()
                log.info("feed.listening")
                yield connection
            finally:
                self.listening.clear()
                connection.terminate()
                self._tell_all(None)

    async def _follow(self, connection: Connection) -> None:
        """Read what is subscribed, and again whenever something may have changed, while the connection lasts."""
        now = asyncio.get_running_loop().time
        listens, next_check = True, now() + self._check_seconds
        self._look_over(self._subscriptions)
        while listens and not connection.is_closed():
            if await self._woken(next_check):
                await self._tell_changes(connection)
                await asyncio.sleep(PACE_SECONDS)
            if now() >= next_check:  # however busy it is
                listens, next_check = await self._checked(connection), now() + self._check_seconds

    async def _checked(self, connection: Connection) -> bool:
        """Whether changes are heard over the connection; all is read again, for some may not have been."""
        self._look_over(self._subscriptions)
        return await standing.still_listens(connection, self._check_seconds / 2)

    async def _woken(self, until: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                return await self._wake.wait()
        return False

    async def _tell_changes(self, connection: Connection) -> None:
        """Read what may have changed. Who was named is told at once, all others by and by what is new to them."""
        self._wake.clear()
        self._heard = 0
        named, unsure = (_taken(topics, AT_ONCE) & self._subscriptions.keys() for topics in (self._stale, self._unsure))
        try:
            with translated():
                await self._read(connection, named, unsure)
        except Conflict:  # a migration waits beside it, say: no reason to let go of the connection
            self._stale, self._unsure, self._places_changed = self._stale | named, self._unsure | unsure, True
        if self._stale or self._unsure or self._places_changed:
            self._wake.set()

    async def _read(self, connection: Connection, named: set[Topic], unsure: set[Topic]) -> None:
        """Tell how these are, and the places of all who wait, where some may have changed."""
        if ids := {topic for topic in named | unsure if isinstance(topic, UUID)}:
            for lease in await standing.read_leases(connection, ids):
                self._tell(lease.id, lease, at_once=lease.id in named)
        if POOL in named | unsure:
            self._tell(POOL, await standing.read_counts(connection, self._pool), at_once=POOL in named)
        if POOLS in named | unsure:
            self._tell(POOLS, tuple(await standing.read_pools(connection)), at_once=POOLS in named)
        if self._places_changed:
            await self._tell_places(connection)

    async def _tell_places(self, connection: Connection) -> None:
        """Read where all are who wait here, in one look at the queue."""
        self._places_changed = False
        if self._queued:
            async for lease_id, place in standing.each_place(connection, self._queued):
                for subscription in self._subscriptions.get(lease_id, ()):
                    self._rounds.tell(subscription, place)

    def _hear(self, pid: int, channel: str, payload: str) -> None:
        """Note what a notification may be about."""
        self._tell_heard(pid, channel, payload)
        if self._due is None:
            self._due = asyncio.get_running_loop().call_at(self._shared_at, self._look_at_shared)
        if channel == LEASE_CHANNEL and self._heard <= HEARD_BYTES:
            self._heard += len(payload) + 100
            hinted = _hinted(payload) if self._heard <= HEARD_BYTES else None
            if hinted is None:
                self._look_over(self._subscriptions)
            else:
                self._look_at(hinted & self._subscriptions.keys())

    def _look_at_shared(self) -> None:
        """Look at the counts, and at the places of all who wait: the more pages show them, the less often."""
        glances: set[Topic] = {topic for topic in (POOL, POOLS) if topic in self._subscriptions}
        pages = sum(len(self._subscriptions.get(topic, ())) for topic in (*glances, *self._queued))
        self._due, self._shared_at = None, asyncio.get_running_loop().time() + PAGE_SECONDS * pages
        self._places_changed = bool(self._queued)
        self._look_over(glances)
        if self._queued:
            self._wake.set()

    def _look_at(self, topics: set[Topic]) -> None:
        if topics:
            self._stale |= topics
            self._wake.set()

    def _look_over(self, topics: Collection[Topic]) -> None:
        """As `_look_at`, of topics of which nobody said that they changed: by and by."""
        self._unsure |= set(topics)
        if topics:
            self._wake.set()

    def _tell(self, topic: Topic, news: News, *, at_once: bool) -> None:
        pages = self._subscriptions.get(topic, ())  # none, where the last was closed while this was read
        if isinstance(news, LeaseView):
            (self._queued.add if pages and news.status == "queued" else self._queued.discard)(news.id)
        for subscription in pages:
            if at_once:
                self._rounds.forget(subscription)
                subscription.tell(news)
            else:
                self._rounds.tell(subscription, news)

    def _tell_all(self, news: News) -> None:
        for subscription in self._everybody():
            self._rounds.forget(subscription)
            subscription.tell(news)

    def _everybody(self) -> list[Subscription]:
        return [each for group in self._subscriptions.values() for each in group]

    def _forget(self, topic: Topic, subscription: Subscription) -> None:
        self._rounds.forget(subscription)
        group = self._subscriptions[topic]
        group.discard(subscription)
        if not group:
            del self._subscriptions[topic]
            if isinstance(topic, UUID):
                self._queued.discard(topic)


def _taken(topics: set[Topic], most: int) -> set[Topic]:
    """So many of them, which are taken out."""
    some = set(islice(topics, most))
    topics -= some
    return some


def _hinted(payload: str) -> set[Topic] | None:
    """The leases that a notification names, or None when it cannot be read: then any may have changed."""
    try:
        return {UUID(hint["id"]) for hint in json.loads(payload)}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None

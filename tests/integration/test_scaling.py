"""Each pool is brought to its size for itself: what keeps one from it keeps no other."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio

from allocator import scaling
from allocator.fleet.refusals import NoCapacity
from allocator.operations import running
from allocator.scaling import Scaler
from tests.support.database import Database
from tests.support.front import Front, listening


@dataclass
class Cloud:
    """A cloud that has no machines for `without`, whose allocator writes down what it does as it always does."""

    database: Database
    without: str
    made: dict[str, int] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    complaints: list[Exception] = field(default_factory=list)
    pool = None
    own = None

    async def connect(self) -> asyncpg.Connection:
        return await asyncpg.connect(self.database.dsn("lablink"))

    async def connect_by(self, way: Front) -> asyncpg.Connection:
        """A connection by a way on which the server, once it was asked, hears no more: not that it is over, either."""
        way.stalls = False
        connection = await asyncpg.connect(self.database.dsn("lablink"), host="127.0.0.1", port=way.port)

        def stall(_query: object) -> None:
            way.stalls = True

        connection.add_query_logger(stall)
        return connection

    async def grow(self, pool: str, number: int) -> None:
        async with running(self.connect, "fleet grow", "a test", pool=pool):
            if pool == self.without:
                raise NoCapacity("apply", "InsufficientInstanceCapacity")
            self.made[pool] = self.made.get(pool, 0) + number

    async def let_go(self, pool: str, hostnames: Sequence[str]) -> None:
        async with running(self.connect, "fleet shrink", "a test", pool=pool):
            if pool == self.without:
                raise NoCapacity("apply", "InsufficientInstanceCapacity")
            self.gone += hostnames

    def scaler(self) -> Scaler:
        """What one allocator has that begins."""
        return Scaler(self.connect, self, self.complaints.append, look_seconds=1)


@asynccontextmanager
async def scaled(database: Database, owner: asyncpg.Connection, size: str) -> AsyncIterator[Cloud]:
    """Two pools of that size, of which the cloud has no machine for the one that comes first."""
    await owner.execute("INSERT INTO pools (name) VALUES ('a-gpu')")
    await owner.execute(f"UPDATE pools SET max_machines = 4, {size}")
    yield Cloud(database, "a-gpu")


@pytest_asyncio.fixture
async def owner(database: Database) -> asyncpg.Connection:
    return await database.connect("lablink")


async def test_a_pool_whose_machines_cannot_be_made_keeps_no_other_from_growing(
    database: Database, owner: asyncpg.Connection
) -> None:
    async with scaled(database, owner, "min_machines = 2, boots_at_once = 2") as cloud:
        for _ in range(2):
            await cloud.scaler().run_once()

        assert cloud.made == {"default": 2}
        assert [type(each) for each in cloud.complaints] == [NoCapacity], "it is tried once"
        stopped = "SELECT growth_stopped($1)"
        assert "InsufficientInstanceCapacity" in await owner.fetchval(stopped, "a-gpu")
        assert await owner.fetchval(stopped, "default") is None
        await owner.execute("UPDATE pools SET min_machines = 3")
        await owner.execute("UPDATE pool_scaling SET booked_until = NULL")
        await cloud.scaler().run_once()
        assert cloud.made["default"] > 2


async def test_a_pool_whose_machines_cannot_be_removed_keeps_no_other_from_shrinking(
    database: Database, owner: asyncpg.Connection
) -> None:
    async with scaled(database, owner, "spare_machines = 0, shrink_after_seconds = 0") as cloud:
        for hostname, pool in (("gpu-1", "a-gpu"), ("vm-1", "default")):
            await database.vm(hostname)
            await owner.execute("UPDATE vms SET pool = $2 WHERE hostname = $1", hostname, pool)
            await owner.execute("INSERT INTO fleet_vms (hostname, pool) VALUES ($1, $2)", hostname, pool)
        for _ in range(2):
            await cloud.scaler().run_once()

        assert set(cloud.gone) == {"vm-1"}
        assert len(cloud.complaints) == 1


async def test_a_pool_that_something_went_wrong_with_is_left_alone_for_a_while(
    database: Database, owner: asyncpg.Connection
) -> None:
    async with scaled(database, owner, "min_machines = 2, boots_at_once = 2") as cloud:
        scaler = cloud.scaler()
        await scaler.run_once()
        await owner.execute("UPDATE operations SET finished_at = clock() - interval '1 hour'")
        await owner.execute("UPDATE pool_scaling SET booked_until = NULL")
        await scaler.run_once()
        assert len(cloud.complaints) == 1
        assert cloud.made == {"default": 4}


async def test_a_server_that_is_slow_to_end_a_session_has_answered_all_the_same(
    database: Database, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "CLOSE_SECONDS", 0.05)
    async with scaled(database, owner, "min_machines = 2, boots_at_once = 2") as cloud:
        way = Front(urlsplit(database.dsn()).port or 0)
        async with listening(way):
            await Scaler(lambda: cloud.connect_by(way), cloud, cloud.complaints.append, look_seconds=1).run_once()
    assert cloud.made == {"default": 2}

"""Machines that are to go from a fleet wait until nobody is on them."""

import asyncio
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from allocator.fleet import drain, record
from allocator.operations import AWAY, Connect
from tests.sql.steps import ADA, lent, row_of
from tests.support import LIMIT_SECONDS
from tests.support.database import Database
from tests.support.wire import Wire


@pytest.fixture
async def service(database: Database) -> asyncpg.Connection:
    return await database.connect("lablink_app", **{"lablink.actor": "web"})


async def test_machines_drain_until_nobody_is_on_them_and_are_lent_again_when_it_is_given_up(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await lent(database, service)
    told: asyncio.Queue[str] = asyncio.Queue()
    connect = record.owners(database.dsn("lablink"), "cli")

    async def tell(_done: int, _total: int | None, what: str) -> None:
        told.put_nowait(what)

    async def wait() -> str:
        async with drain.drained(connect, ["vm-1"], tell):
            return "free"

    given_up = asyncio.create_task(wait())
    assert ADA in await told.get()
    given_up.cancel()
    await asyncio.wait([given_up])
    assert (await row_of(owner))["draining"] is False

    while not told.empty():
        told.get_nowait()
    waiting = asyncio.create_task(wait())
    await told.get()
    await service.execute("SELECT end_lease($1)", lease)
    async with asyncio.timeout(LIMIT_SECONDS):
        assert await waiting == "free"
    await vm.clean()
    assert (await row_of(owner))["draining"] is False


async def test_a_wait_for_people_outlives_a_database_that_goes_away(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, lease = await lent(database, service)
    monkeypatch.setattr(drain, "LOOK_SECONDS", 0.05)
    told: asyncio.Queue[str] = asyncio.Queue()

    async def tell(_done: int, _total: int | None, what: str) -> None:
        told.put_nowait(what)

    async def wait() -> None:
        async with drain.drained(record.owners(database.dsn("lablink"), "cli"), ["vm-1"], tell):
            return

    waiting = asyncio.create_task(wait())
    assert ADA in await told.get()
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lablink fleet'"
    await owner.execute(f"{cut} AND datname = current_database()")
    async with asyncio.timeout(LIMIT_SECONDS):
        while await told.get() != drain.WAITING:
            pass
        await service.execute("SELECT end_lease($1)", lease)
        await waiting


@pytest.mark.parametrize("verb", ["drain_vms", "COMMIT"])
async def test_machines_are_lent_again_though_nobody_heard_that_they_were_taken_out(
    database: Database, wire: Wire, owner: asyncpg.Connection, verb: str
) -> None:
    await database.vm()
    loss = wire.lose("answer", verb)
    with pytest.raises(AWAY):
        async with drain.drained(through(database, wire), ["vm-1"], told_to_nobody):
            pytest.fail("nobody knew that they were taken out")

    assert loss.happened.is_set()
    assert (await row_of(owner))["draining"] is False


@pytest.mark.parametrize("times", [1, 2])
async def test_machines_are_lent_again_once_the_database_is_there_again(
    database: Database,
    wire: Wire,
    owner: asyncpg.Connection,
    service: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    times: int,
) -> None:
    await lent(database, service)
    monkeypatch.setattr(drain, "LOOK_SECONDS", 0.05)
    waits = asyncio.Event()

    async def tell(_done: int, _total: int | None, _what: str) -> None:
        waits.set()

    async def wait() -> None:
        async with drain.drained(through(database, wire), ["vm-1"], tell):
            pytest.fail("somebody is on it")

    given_up = asyncio.create_task(wait())
    async with asyncio.timeout(LIMIT_SECONDS):
        await waits.wait()
        with wire.down():
            for _ in range(times):
                given_up.cancel()
                tried = wire.accepted
                while wire.accepted == tried:
                    await asyncio.wait([given_up], timeout=0.01)
            assert not given_up.done()
        await asyncio.wait([given_up])

    assert (await row_of(owner))["draining"] is False


def through(database: Database, wire: Wire) -> Connect:
    """How the owner connects over the wire."""
    here = urlsplit(database.dsn("lablink"))
    there = here._replace(netloc=here.netloc.replace(f":{here.port}", f":{wire.port}"))
    return record.owners(urlunsplit(there), "cli")


async def told_to_nobody(_done: int, _total: int | None, _what: str) -> None:
    pass

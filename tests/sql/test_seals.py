"""Seals: made behind the history, each event in one, whoever is late and whatever a session has set."""

import asyncio

import asyncpg
import pytest

from allocator.local.postgres_binaries import find_binaries
from tests.sql.history import happen, head, seal, wrong
from tests.support import LIMIT_SECONDS
from tests.support.database import PASSWORDS, Database, as_superuser

LINE = (
    '[7, 1763733600.250000, "web", "lablink_app", "10.0.0.9/32", "lease.queued", 3, "vm-3", '
    '"00000000-0000-0000-0000-000000000001", {"n": 1.50, "text": "ünïcödé \\"x\\"", "later": null}]'
)


async def test_what_happened_is_sealed_once(owner: asyncpg.Connection, service: asyncpg.Connection) -> None:
    await happen(owner, 5)
    first = await seal(service)
    again = await seal(service)
    await happen(owner, 2)

    assert (first, again, await seal(service)) == (5, 0, 2)
    assert await wrong(owner) == []
    assert [row["events"] for row in await owner.fetch("SELECT events FROM event_seals ORDER BY seal")] == [5, 2]


async def test_the_first_event_is_sealed_however_long_it_was_waited_for(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    assert await seal(service) == 0
    await happen(owner)
    assert await seal(service) == 1
    assert await wrong(owner) == []


async def test_an_event_committed_late_is_sealed_late(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    slow = await database.connect()
    transaction = slow.transaction()
    await transaction.start()
    (late,) = await happen(slow)
    await happen(owner, 3)
    before = await seal(service)
    again = await seal(service)
    await transaction.commit()

    assert (before, again, await seal(service)) == (3, 0, 1)
    assert await owner.fetchval("SELECT ids @> $1::bigint FROM event_seals ORDER BY seal DESC LIMIT 1", late)
    assert await wrong(owner) == []


async def test_a_transaction_left_open_keeps_neither_writers_nor_seals_waiting(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    idle = await database.connect()
    async with idle.transaction():
        await happen(idle)
        await idle.fetch("SELECT * FROM events")
        await owner.execute("SET lock_timeout = '1s'")
        await happen(owner)
        assert await seal(service) == 1
        assert await service.fetchval("SELECT sweep_months()") == 0


async def test_rounds_read_new_events_only(owner: asyncpg.Connection, service: asyncpg.Connection) -> None:
    ids = await happen(owner, 5)
    async with asyncio.timeout(LIMIT_SECONDS):
        while await owner.fetchval("SELECT settled FROM event_sealing") < ids[-1]:
            await seal(service)  # not in the first rounds, where PostgreSQL's own work is in a transaction


async def test_a_history_longer_than_a_round_is_sealed_in_several(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await happen(owner, 10_001)
    rounds = [await service.fetchval("SELECT sweep_seal()") for _ in range(3)]
    assert rounds == [10_000, 1, 0]
    assert await wrong(owner) == []


async def test_a_seal_covers_one_month(owner: asyncpg.Connection, service: asyncpg.Connection) -> None:
    await happen(owner, 2, "'2026-07-31 23:59:59.9+00'")
    await happen(owner, 3, "'2026-08-01 00:00:00+00'")
    await seal(service)
    seals = await owner.fetch("SELECT to_char(month, 'YYYY-MM') AS month, events FROM event_seals ORDER BY seal")
    assert [tuple(row) for row in seals] == [("2026-07", 2), ("2026-08", 3)]
    assert await wrong(owner) == []


@pytest.mark.parametrize("style", ["German", "SQL, DMY"])
async def test_no_setting_of_a_session_and_no_version_changes_the_line_that_is_sealed(
    owner: asyncpg.Connection, style: str
) -> None:
    await owner.execute(f"SET DateStyle = '{style}'; SET TimeZone = 'Pacific/Auckland'; SET extra_float_digits = 0")
    await owner.execute("SET bytea_output = 'escape'; SET IntervalStyle = 'sql_standard'")
    line = await owner.fetchval(
        """
        SELECT event_line(ROW(7, '2025-11-21 14:00:00.25+00', 'web', 'lablink_app', '10.0.0.9', 'lease.queued', 3,
                              'vm-3', '00000000-0000-0000-0000-000000000001',
                              '{"text": "ünïcödé \\"x\\"", "n": 1.50, "later": null}')::events)
        """
    )
    assert line == LINE


async def test_a_dump_and_restore_by_any_means_keeps_the_chain(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await happen(owner, 2, "'2026-07-31 23:59:59.9+00'")
    await happen(owner, 3)
    await service.fetchval("SELECT sweep_months()")
    await seal(service)
    kept = await head(owner)
    copy = await _restored(database)

    assert await wrong(copy, kept) == []
    await happen(copy, 2)
    assert await seal(copy) == 2
    assert await wrong(copy, kept) == []


async def _restored(database: Database) -> asyncpg.Connection:
    """The owner's connection to a copy of the database that plain pg_dump and psql made."""
    copy, directory = f"{database.name}_copy", find_binaries(database.server.version).directory
    await as_superuser(database.server, f"CREATE DATABASE {copy} OWNER lablink")
    database.opened.push_async_callback(as_superuser, database.server, f"DROP DATABASE {copy} WITH (FORCE)")
    target = database.server.dsn(copy, "lablink", PASSWORDS["lablink"])
    script = f"'{directory}/pg_dump' '{database.dsn('lablink')}' | '{directory}/psql' -qv ON_ERROR_STOP=1 '{target}'"
    assert await (await asyncio.create_subprocess_shell(script, stdout=asyncio.subprocess.DEVNULL)).wait() == 0
    return await database.keep(target)

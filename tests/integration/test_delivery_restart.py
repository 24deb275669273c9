"""PostgreSQL crashes in the middle of a request, and everybody finds together again."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest_asyncio

from tests.support import LIMIT_SECONDS
from tests.support.database import Database, cloned_database, migrated_template
from tests.support.machine import Machine, Pool, reached
from tests.support.restarts import Crashing
from tests.support.wire import Wire


@pytest_asyncio.fixture
async def crashing(tmp_path: Path) -> AsyncIterator[Crashing]:
    server = Crashing.under(tmp_path / "server")
    yield server
    await server.stop()


@pytest_asyncio.fixture
async def database(crashing: Crashing) -> AsyncIterator[Database]:
    server = await crashing.start()
    async with migrated_template(server) as template, cloned_database(server, template, "lablink_crashing") as own:
        yield own


async def ended_well(database: Database, machine: Machine, lease: UUID) -> Pool:
    """The lease's command runs, the machine is handed back, and available again."""
    pool = await Pool.of(database)
    assert (await pool.finished(lease))["status"] == "active"
    await pool.end(lease)
    await pool.available(machine)
    return pool


async def test_a_restart_at_every_verb_of_a_lease_loses_nothing_and_starts_the_command_once(
    crashing: Crashing, database: Database, wire: Wire, tmp_path: Path
) -> None:
    machine = Machine.of(await database.vm(), tmp_path / "vm", wire.port)
    lease = await (await Pool.of(database)).request_job(machine.job())
    losses = [wire.lose("answer", f"client_api.{verb}(") for verb in ("claim", "report")]
    async with machine.serving():
        for lost in losses:
            async with asyncio.timeout(LIMIT_SECONDS):
                await lost.happened.wait()
            await crashing.crash()
            await crashing.start()
        pool = await ended_well(database, machine, lease)
        assert await pool.owner.fetch("SELECT * FROM broken_invariants()") == []
    assert machine.count_starts() == 1


async def test_a_command_that_ends_while_the_database_is_away_is_reported_when_it_is_back(
    crashing: Crashing, database: Database, wire: Wire, tmp_path: Path
) -> None:
    machine = Machine.of(await database.vm(), tmp_path / "vm", wire.port)
    pool = await Pool.of(database)
    lease = await pool.request_job(machine.job(f"until [ -e {tmp_path}/go ]; do sleep 0.01; done; exit 7"))
    async with machine.serving():
        await pool.settled(lease)
        await crashing.crash()
        (tmp_path / "go").touch()
        await reached(lambda: b'"done"' in machine.state.journal.read_bytes())
        await crashing.start()
        assert (await (await Pool.of(database)).finished(lease))["exit_code"] == 7


async def test_a_claim_and_a_wipe_that_a_crash_loses_are_made_again_and_start_nothing_twice(
    crashing: Crashing, database: Database, wire: Wire, tmp_path: Path
) -> None:
    """Both are answered before the disk has them (answer_before_the_disk); here it never gets them by itself."""
    superuser = await database.connect("postgres")
    await superuser.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
    await superuser.execute("SELECT pg_reload_conf()")
    machine = Machine.of(await database.vm(), tmp_path / "vm", wire.port)
    pool = await Pool.of(database)
    lease = await pool.request_job(machine.job())
    unreported = wire.lose("request", "client_api.report(")
    async with machine.serving():
        async with asyncio.timeout(LIMIT_SECONDS):
            await unreported.happened.wait()
        await crashing.crash()
        await crashing.start()
        await ended_well(database, machine, lease)
        await crashing.crash()
        await crashing.start()
        pool = await Pool.of(database)
        await pool.available(machine)
        assert await pool.owner.fetch("SELECT * FROM broken_invariants()") == []
    assert machine.count_starts() == 1

"""Long runs: one at a time, each with its progress and an end, whatever becomes of the process."""

import asyncio
import json
import socket
from contextlib import AbstractAsyncContextManager

import asyncpg
import pytest

from allocator import migrate
from allocator.fleet import record
from allocator.operations import Operation, OperationRefused, running
from allocator.upkeep.reach import connect
from tests.support.database import Database


def begin(database: Database, kind: str = "backup", who: str = "ada") -> AbstractAsyncContextManager[Operation]:
    """An operation of this kind, to be entered."""
    return running(lambda: connect(database.dsn("lablink")), kind, who)


async def rows(database: Database) -> list[asyncpg.Record]:
    owner = await database.connect()
    return await owner.fetch("SELECT * FROM operations WHERE kind <> 'migrate' ORDER BY id")


async def cut_off(database: Database, operation: Operation) -> None:
    """Its connections are lost, and the server knows it."""
    watching, lost = await database.connect("postgres"), (operation.lock, operation.rows)
    sessions = [connection.get_server_pid() for connection in lost]
    for connection in lost:
        connection.terminate()
    while await watching.fetchval("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = ANY ($1))", sessions):
        pass


async def test_a_run_is_a_row_with_progress_and_a_result(database: Database) -> None:
    async with begin(database) as operation:
        await operation.progress(3, 7, "public.vms")
        (row,) = await rows(database)
        assert (row["status"], row["done"], row["total"], row["started_by"]) == ("running", 3, 7, "ada")
        assert row["step"] == "public.vms"
        operation.result = {"size": 12}

    (row,) = await rows(database)
    assert (row["status"], row["step"], json.loads(row["result"])) == ("done", None, {"size": 12})


async def test_a_run_that_fails_says_why(database: Database) -> None:
    with pytest.raises(ValueError, match="no room"):
        async with begin(database):
            raise ValueError("there is no room\nand much detail")

    (row,) = await rows(database)
    assert (row["status"], row["error"]) == ("failed", "there is no room")


async def test_what_a_run_has_locked_is_free_soon_after_its_machine_has_lost_power(database: Database) -> None:
    async with begin(database) as operation:
        probes = [
            await operation.lock.fetchval(f"SHOW tcp_keepalives_{name}") for name in ("idle", "interval", "count")
        ]

    assert probes == ["10", "5", "3"]


async def test_who_waits_for_hours_notices_that_nobody_is_at_the_other_end_any_more(database: Database) -> None:
    dsn = database.dsn("lablink")
    for connection in (await connect(dsn), await record.owners(dsn, "cli")()):
        end = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
        assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) > 0
        await connection.close()


async def test_a_run_that_is_cancelled_was_interrupted(database: Database) -> None:
    begun = asyncio.Event()

    async def work() -> None:
        async with begin(database):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    (row,) = await rows(database)
    assert (row["status"], row["error"]) == ("failed", "interrupted")


async def test_a_second_run_is_refused_with_what_runs_and_since_when(database: Database) -> None:
    async with begin(database, "restore", "ada on laptop"):
        with pytest.raises(OperationRefused, match=r"a restore runs since 20.* UTC, started by ada on laptop"):
            async with begin(database):
                pytest.fail("two ran at once")

    assert [row["kind"] for row in await rows(database)] == ["restore"]
    async with begin(database):
        pass


async def test_who_is_refused_reads_how_far_the_other_is(database: Database) -> None:
    async with begin(database, "fleet grow") as operation:
        await operation.progress(3, 7, "create: vm-3")
        with pytest.raises(OperationRefused, match=r"started by ada \(create: vm-3, 3 of 7\): try again"):
            async with begin(database):
                pytest.fail("two ran at once")


async def test_what_a_killed_process_left_running_is_closed_by_the_next_run(database: Database) -> None:
    async with begin(database) as killed:
        await cut_off(database, killed)
        async with begin(database, "rehearse"):
            statuses = [(row["kind"], row["status"], row["error"]) for row in await rows(database)]

    assert statuses == [("backup", "failed", "interrupted"), ("rehearse", "running", None)]


async def test_one_runs_at_a_time_in_a_database_of_the_first_version_too(database: Database) -> None:
    await migrate.downgrade(database.dsn("lablink"), "1")
    async with begin(database) as operation:
        await operation.progress(1, 1, "a step, of which that version knows nothing")
        with pytest.raises(OperationRefused):
            async with begin(database):
                pytest.fail("two ran at once")


async def test_who_waits_stands_in_nobodys_way_and_goes_on_when_it_is_its_turn(database: Database) -> None:
    async with begin(database, "fleet shrink") as waits:
        await waits.step_aside()
        async with begin(database, "backup"):
            assert [row["status"] for row in await rows(database)] == ["waiting", "running"]
            turn = asyncio.create_task(waits.go_on())
            with pytest.raises(OperationRefused, match="a backup runs"):
                async with begin(database):
                    pytest.fail("two ran at once")
        await turn
        with pytest.raises(OperationRefused, match="a fleet shrink runs"):
            async with begin(database):
                pytest.fail("two ran at once")

    assert [row["status"] for row in await rows(database)] == ["done", "done"]


@pytest.mark.parametrize("goes_on", [True, False])
async def test_who_is_cut_off_while_it_waits_is_closed_by_the_next_run_unless_it_goes_on(
    database: Database, goes_on: bool
) -> None:
    async with begin(database, "fleet shrink") as waits:
        await waits.step_aside()
        await cut_off(database, waits)
        async with begin(database):
            assert [row["error"] for row in await rows(database)] == ["interrupted", None]
        if goes_on:
            await waits.go_on()

    assert (await rows(database))[0]["status"] == ("done" if goes_on else "failed")


async def test_a_version_that_knows_no_waiting_finds_who_waited_interrupted(database: Database) -> None:
    owner = await database.connect()
    await owner.execute("INSERT INTO operations (kind, status) VALUES ('fleet shrink', 'waiting')")

    await migrate.downgrade(database.dsn("lablink"), "6")

    assert [(row["status"], row["error"]) for row in await rows(database)] == [("failed", "interrupted")]


async def test_no_run_begins_while_the_database_is_migrated(database: Database) -> None:
    owner = await database.connect()
    async with owner.transaction():
        await owner.execute(migrate.LOCK_VERSION)
        with pytest.raises(OperationRefused, match="is being migrated"):
            async with begin(database):
                pytest.fail("it ran beside the migration")


async def test_a_run_that_ended_well_with_a_problem_failed(database: Database) -> None:
    async with begin(database) as operation:
        operation.result, operation.problem = {"steps": 2}, "a row is missing"

    (row,) = await rows(database)
    assert (row["status"], row["error"], json.loads(row["result"])) == ("failed", "a row is missing", {"steps": 2})


async def test_a_run_that_is_not_wanted_any_more_is_not_begun(database: Database) -> None:
    with pytest.raises(OperationRefused, match="Somebody else did it"):
        async with running(lambda: connect(database.dsn("lablink")), "backup", "ada", wanted="SELECT false"):
            pytest.fail("nobody wanted it")

    assert await rows(database) == []


async def test_a_run_outlives_its_connection_to_write_down_its_end(database: Database) -> None:
    async with begin(database) as operation:
        operation.rows.terminate()
        await operation.progress(7, 7)

    assert [(row["status"], row["done"]) for row in await rows(database)] == [("done", 7)]

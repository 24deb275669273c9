"""The `lablink` commands that go on: what they print as it happens, and how they end."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support import LIMIT_SECONDS
from tests.support.database import Database
from tests.support.under_way import started


@asynccontextmanager
async def following(database: Database, *arguments: str) -> AsyncIterator[asyncio.StreamReader]:
    """The output of a command that goes on until the end of the block."""
    process = await started(database, *arguments)
    assert process.stdout
    try:
        yield process.stdout
    finally:
        process.terminate()
        await process.communicate()


@pytest.mark.parametrize("command", ["events --follow", "vms watch", "vms watch --json"])
async def test_what_follows_ends_quietly_with_ctrl_c(database: Database, command: str) -> None:
    await database.vm("vm-1")
    process = await started(database, *command.split())
    assert process.stdout

    await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, complaints = await process.communicate()

    assert (process.returncode, complaints) == (130, b"")


@pytest.mark.parametrize("command", ["events --follow", "vms watch", "events --json", "vms list", "vms show vm-1"])
async def test_a_reader_that_has_seen_enough_ends_the_command_quietly(database: Database, command: str) -> None:
    await database.vm("vm-1")
    reads, writes = os.pipe()
    os.close(reads)

    process = await started(database, *command.split(), stdout=writes)
    os.close(writes)
    _, complaints = await process.communicate()

    assert complaints == b""


async def line(stream: asyncio.StreamReader) -> Any:
    """The next line of JSON, under a limit."""
    async with asyncio.timeout(LIMIT_SECONDS):
        return json.loads(await stream.readline())


async def test_events_are_followed_as_they_happen_and_resumed_where_they_stopped(database: Database) -> None:
    owner = await database.connect()
    await database.vm("vm-1")
    async with following(database, "events", "--follow", "--json") as events:
        first = [(await line(events))["kind"] for _ in range(3)]
        await owner.execute("SELECT fail_vm('vm-1', 'held')")
        last = await line(events)
    await owner.execute("SELECT return_vm('vm-1')")

    async with following(database, "events", "--follow", "--json", f"--after={last['id']}") as events:
        resumed = await line(events)

    assert first == ["vm.invited", "vm.booting", "vm.available"]
    assert last["kind"] == "vm.failed"
    assert resumed["kind"] == "vm.cleaning"


async def test_an_event_committed_after_a_later_one_is_still_followed(database: Database) -> None:
    await database.vm("vm-1")
    await database.vm("vm-2")
    slow, quick = await database.connect(), await database.connect()
    transaction = slow.transaction()
    await transaction.start()
    await slow.execute("SELECT fail_vm('vm-1', 'held')")

    async with following(database, "events", "--follow", "--json", "--limit=1") as events:
        await line(events)
        await quick.execute("SELECT fail_vm('vm-2', 'held')")
        later = await line(events)
        await transaction.commit()
        earlier = await line(events)

    assert (later["hostname"], earlier["hostname"]) == ("vm-2", "vm-1")
    assert earlier["id"] < later["id"]


async def test_following_goes_on_after_its_connection_was_killed(database: Database) -> None:
    owner = await database.connect()
    await database.vm("vm-1")
    async with following(database, "events", "--follow", "--json", "--limit=1") as events:
        await line(events)
        killed = await owner.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE application_name = 'lablink cli' AND datname = current_database()"
        )
        await owner.execute("SELECT fail_vm('vm-1', 'held')")
        last = await line(events)

    assert killed == 1
    assert last["kind"] == "vm.failed"


async def test_watching_prints_each_change_of_a_machine_once(database: Database) -> None:
    owner = await database.connect()
    await database.vm("vm-1")
    async with following(database, "vms", "watch", "--json") as changes:
        before = await line(changes)
        await owner.execute("SELECT fail_vm('vm-1', 'held')")
        after = await line(changes)
        await owner.execute("DELETE FROM vms")
        gone = await line(changes)

    assert [change["status"] for change in (before, after, gone)] == ["available", "failed", "gone"]

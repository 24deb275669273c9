"""A scratch database is nobody's but its owner's, from its first moment on, and gone when the work in it is over."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from allocator.upkeep.reach import in_database
from allocator.upkeep.scratch import reference_database, scratch_database
from tests.support.database import Database
from tests.support.upkeep import without_kept_databases
from tests.support.wire import wire_to

Made = Callable[[str], AbstractAsyncContextManager[str]]
BESIDE = "SELECT count(*) FROM pg_database WHERE starts_with(datname, $1)"
TRIES = "SELECT pid, query_start FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'DROP DATABASE %'"


async def test_nobody_comes_in_before_everybodys_right_to_is_gone(database: Database) -> None:
    vm = await database.vm()
    async with without_kept_databases(database), wire_to(database.server) as wire:
        wire.misheard = {b"REVOKE": b"REVOKX", b"DROP D": b"DROQ D"}  # it stays as it was just after it was made
        with pytest.raises(asyncpg.PostgresSyntaxError):
            async with scratch_database(through(wire.port, database.dsn("lablink"))):
                pass
        owner = await database.connect()
        (left,) = await owner.fetch(
            "SELECT datname FROM pg_database WHERE starts_with(datname, current_database() || '_scratch_')"
        )

        with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match="not currently accepting connections"):
            await asyncpg.connect(in_database(vm.dsn, left["datname"]))


def through(port: int, dsn: str) -> str:
    """`dsn`, by way of a wire."""
    parts = urlsplit(dsn)
    who = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{who}@127.0.0.1:{port}"))


async def goes_on_when_tried_again(superuser: asyncpg.Connection, pid: int) -> None:
    """Let a backend go on when somebody has tried in vain to drop its database, and tries once more."""
    tries: set[tuple[object, ...]] = set()
    while len(tries) < 2:
        tries |= {tuple(row) for row in await superuser.fetch(TRIES)}
    os.kill(pid, signal.SIGCONT)


@pytest.mark.slow
@pytest.mark.parametrize("made", [scratch_database, reference_database])
async def test_it_is_dropped_though_a_session_there_gets_no_processor(database: Database, made: Made) -> None:
    superuser = await database.connect("postgres")
    async with asyncio.TaskGroup() as group, made(database.dsn("lablink")) as dsn:
        session = await database.keep(dsn)
        os.kill(session.get_server_pid(), signal.SIGSTOP)
        group.create_task(goes_on_when_tried_again(superuser, session.get_server_pid()))
    assert await superuser.fetchval(BESIDE, f"{database.name}_") == 0

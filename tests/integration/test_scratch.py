"""A scratch database is nobody's but its owner's, from its first moment on."""

from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from allocator.upkeep.reach import in_database
from allocator.upkeep.scratch import scratch_database
from tests.support.database import Database
from tests.support.upkeep import without_kept_databases
from tests.support.wire import wire_to


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

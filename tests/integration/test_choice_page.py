"""The form where there are several kinds of machines: how each is now, and whether that can be known."""

from pathlib import Path

import asyncpg
import httpx

from tests.support.database import Database
from tests.support.service import ready, running_service, settings_for, streaming
from tests.support.wire import Wire


async def test_whoever_chooses_is_told_when_the_database_is_lost_and_when_it_is_back(
    database: Database, owner: asyncpg.Connection, wire: Wire, tmp_path: Path
) -> None:
    await owner.execute("INSERT INTO pools (name) VALUES ('gpu')")
    await database.vm()
    async with running_service(settings_for(database, tmp_path, wire=wire)) as service, service.client() as client:
        await ready(service.service)
        assert 'sse-swap="contact"' in (await client.get("/")).text
        async with streaming(client, "/choice/stream") as stream:
            assert "lost contact" not in await stream.next("contact")
            with wire.down():
                assert "lost contact" in await stream.next("contact")
            assert "lost contact" not in await stream.next("contact")


async def test_where_there_is_one_kind_nothing_is_said_twice(client: httpx.AsyncClient) -> None:
    assert 'sse-swap="contact"' not in (await client.get("/")).text

"""Open pages follow: what changes is sent in pieces, to the end of the lease or of the service."""

from collections.abc import AsyncGenerator

import asyncpg
import httpx

from tests.integration.test_pages import ask, heading
from tests.support.database import Database
from tests.support.service import EventStream, PlayedClient, RunningService, streaming


async def headings(stream: EventStream) -> AsyncGenerator[str]:
    """Each heading that a page is sent, once, whatever changes below it meanwhile."""
    shown = ""
    while True:
        now = heading(await stream.next("lease"))
        if now != shown:
            yield (shown := now)


async def retry_of(stream: EventStream) -> int:
    """After how many milliseconds a browser is to open the stream again."""
    async for line in stream.lines:
        if line.startswith("retry: "):
            return int(line.removeprefix("retry: "))
    raise AssertionError("the stream says nothing of that")


async def test_what_is_announced_is_escaped_also_where_the_database_lets_a_strange_name_in(
    database: Database, client: httpx.AsyncClient
) -> None:
    owner = await database.connect()
    await database.vm("vm-1")
    await owner.execute("ALTER TABLE vms DROP CONSTRAINT vms_hostname_is_a_name")
    await owner.execute("ALTER TABLE vms DISABLE TRIGGER USER")
    await owner.execute("UPDATE vms SET hostname = '<b>vm</b>'")
    await owner.execute("ALTER TABLE vms ENABLE TRIGGER USER")
    lease = await ask(client)

    async with streaming(client, f"{lease}/stream") as stream:
        assert (await stream.next("announcement")).startswith("&lt;b&gt;vm&lt;/b&gt; is yours")


async def test_an_open_page_follows_the_lease_to_its_end(
    database: Database, client: httpx.AsyncClient, owner: asyncpg.Connection
) -> None:
    lease = await ask(client)
    async with streaming(client, f"{lease}/stream") as stream:
        shown = headings(stream)
        assert await anext(shown) == "You are next in line"
        machine = await PlayedClient.of(await database.vm("vm-1"))
        assert await anext(shown) == "vm-1 is yours"
        assert await stream.next("announcement") == "vm-1 is yours. We are telling it about your command."
        await machine.claim()
        await owner.execute("SELECT pg_notify('lease_updates', '')")  # else it is seen within ten seconds
        assert await anext(shown) == "vm-1 is starting your command"
        await machine.report("started")
        assert await anext(shown) == "Your command is running"
        await machine.report("exited", 0, "42\n")
        assert await anext(shown) == "Your command is done"
        await client.post(f"{lease}/end")
        assert await anext(shown) == "This lease is over"
        assert (await stream.rest())[-1] == "over"


async def test_the_page_says_that_nothing_is_heard_of_the_machine(
    database: Database, client: httpx.AsyncClient
) -> None:
    vm = await database.vm("vm-1")
    lease = await ask(client)
    assert "Nothing is heard" not in (await client.get(lease)).text

    await database.age(vm, 26)

    page = (await client.get(lease)).text
    assert "Nothing is heard of vm-1 at the moment." in page
    assert "Heard last" in page


async def test_a_place_in_line_moves_up_on_the_open_page(service: RunningService, client: httpx.AsyncClient) -> None:
    async with service.client() as earlier:
        first = await ask(earlier, email="first@example.org")
        second = await ask(client)
        async with streaming(client, f"{second}/stream") as stream:
            shown = headings(stream)
            assert await anext(shown) == "You are 2nd in line"
            await earlier.post(f"{first}/end")
            assert await anext(shown) == "You are next in line"


async def test_the_form_follows_the_number_of_free_machines(database: Database, client: httpx.AsyncClient) -> None:
    async with streaming(client, "/stream") as stream:
        assert "There are no machines yet" in await stream.next("pool")
        await database.vm()
        while "1 of 1 machines is free" not in await stream.next("pool"):
            pass  # enrolled, but not free yet
        await ask(client)
        while "No machine is free" not in await stream.next("pool"):
            pass


async def test_a_page_whose_stream_ends_opens_another_within_a_second(client: httpx.AsyncClient) -> None:
    lease = await ask(client)
    for path in ("/stream", f"{lease}/stream"):
        async with streaming(client, path) as stream:
            assert 0 < await retry_of(stream) <= 1000


async def test_open_pages_do_not_keep_the_service_from_stopping(
    service: RunningService, client: httpx.AsyncClient
) -> None:
    lease = await ask(client)
    async with streaming(client, "/stream") as form, streaming(client, f"{lease}/stream") as page:
        await form.next("pool")
        await page.next("lease")
        service.server.config.timeout_graceful_shutdown = 600
        await service.stop()

        assert set(await form.rest()) <= {"beat"}
        assert "over" not in await page.rest()

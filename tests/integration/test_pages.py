"""The pages as they are sent: each state of a lease, and who may see it."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from uuid import UUID

import httpx
import pytest

from allocator.tokens import pin_of
from tests.support import LIMIT_SECONDS
from tests.support.database import Database
from tests.support.service import (
    DESKTOP_LINE,
    PlayedClient,
    RunningService,
    streaming,
)

FORM = {"email": "ada@example.org", "crd_command": "python3 -c 'print(42)'"}
DESKTOP = FORM | {"crd_command": DESKTOP_LINE}
HTML = {"Accept": "text/html"}


async def ask(client: httpx.AsyncClient, **form: str) -> str:
    """Ask with the form; returns where the lease's page is."""
    answer = await client.post("/api/request_vm", data=FORM | form)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def heading(page: httpx.Response | str) -> str:
    """The main heading of a page or a piece of one."""
    text = page if isinstance(page, str) else page.text
    found = re.search(r"<h1[^>]*>(.*?)</h1>", text)
    assert found
    return found[1]


async def test_the_page_tells_each_step_of_a_job(database: Database, client: httpx.AsyncClient) -> None:
    machine = await PlayedClient.of(await database.vm("vm-1"))
    lease = await ask(client)
    assert heading(await client.get(lease)) == "vm-1 is yours"

    await machine.claim()
    assert heading(await client.get(lease)) == "vm-1 is starting your command"
    await machine.report("started")
    assert heading(await client.get(lease)) == "Your command is running"
    await machine.report("exited", 3, "<script>alert(1)</script>")
    page = await client.get(lease)
    assert heading(page) == "Your command failed"
    assert "exit code 3" in page.text and 'class="sheet lease failed"' in page.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text
    await client.post(f"{lease}/end")
    page = await client.get(lease)
    assert heading(page) == "This lease is over"
    assert "Ask again" in page.text and "sse-connect" not in page.text


async def give_back(database: Database, client: httpx.AsyncClient, lease: str) -> None:
    await client.post(f"{lease}/end")


async def free_the_machine(database: Database, client: httpx.AsyncClient, lease: str) -> None:
    await (await database.connect()).execute("UPDATE vms SET status = 'available'")


async def let_the_time_be_up(database: Database, client: httpx.AsyncClient, lease: str) -> None:
    await database.age(UUID(lease.rpartition("/")[2]), 9 * 3600)


@pytest.mark.parametrize(
    ("end", "ended_by", "sentence"),
    [
        (give_back, "holder", "You gave the machine back."),
        (free_the_machine, "admin", "An admin ended it."),
        (let_the_time_be_up, "service", "Its time was up."),
    ],
)
async def test_a_lease_says_who_ended_it(
    database: Database,
    client: httpx.AsyncClient,
    end: Callable[[Database, httpx.AsyncClient, str], Awaitable[None]],
    ended_by: str,
    sentence: str,
) -> None:
    machine = await PlayedClient.of(await database.vm("vm-1"))
    lease = await ask(client)
    await machine.claim()
    await machine.report("started")

    async with streaming(client, f"{lease}/stream") as stream:
        await end(database, client, lease)
        while heading(piece := await stream.next("lease")) != "This lease is over":
            pass

    assert sentence in piece
    assert (await client.get(f"/api/v1{lease}")).json()["ended_by"] == ended_by


async def test_a_desktop_that_is_ready_says_where_it_is_and_its_pin(
    database: Database, client: httpx.AsyncClient
) -> None:
    machine = await PlayedClient.of(await database.vm("vm-1"))
    lease = await ask(client, **DESKTOP)
    await machine.claim()
    before = (await client.get(lease)).text
    await machine.report("exited", 0, "Host started successfully.\n")

    page = (await client.get(lease)).text

    link = re.search(r'value="http://127[^"]*#([A-Za-z0-9_-]{43})"', page)
    assert link
    assert heading(page) == "Your machine is ready"
    assert "https://remotedesktop.google.com/access" in page
    assert pin_of(link[1]) in page
    assert pin_of(link[1]) not in before


async def test_a_failed_lease_says_why_and_lets_one_ask_again(database: Database, client: httpx.AsyncClient) -> None:
    machine = await PlayedClient.of(await database.vm())
    lease = await ask(client, **DESKTOP)
    await machine.claim()
    await machine.report("failed", 1, "No such host", "command-failed")

    page = await client.get(lease)
    form = await client.get("/")

    assert heading(page) == "That did not work"
    assert "The command failed on the machine" in page.text and "Ask again" in page.text
    assert 'value="ada@example.org"' in form.text and "You already have" not in form.text


@pytest.mark.parametrize("path", ["/leases/00000000-0000-0000-0000-000000000000", "{mine}"])
async def test_others_are_not_told_whether_a_lease_is_there(
    service: RunningService, client: httpx.AsyncClient, path: str
) -> None:
    mine = await ask(client)
    async with service.client() as stranger:
        page = await stranger.get(path.format(mine=mine), headers=HTML)
        stream = await stranger.get(f"{path.format(mine=mine)}/stream")
        ended = await stranger.post(f"{path.format(mine=mine)}/end", headers=HTML)

    assert (page.status_code, stream.status_code, ended.status_code) == (404, 401, 401)
    assert heading(page) == "This page is not open to you"
    assert "ada" not in page.text
    assert heading(await client.get(mine)) == "You are next in line"


async def test_the_links_key_is_exchanged_for_a_cookie(service: RunningService, client: httpx.AsyncClient) -> None:
    lease = await ask(client)
    token = client.cookies["lablink"].partition(".")[2]

    async with service.client() as other:
        wrong = await other.post(f"{lease}/return", headers={"Authorization": "Bearer wrong"})
        assert wrong.status_code == 404 and not other.cookies
        right = await other.post(f"{lease}/return", headers={"Authorization": f"Bearer {token}"})

        assert right.status_code == 204
        assert heading(await other.get(lease)) == "You are next in line"


async def test_a_browser_remembers_its_last_leases_and_forgets_the_oldest(client: httpx.AsyncClient) -> None:
    leases = [await ask(client, email=f"p{number}@example.org") for number in range(10)]

    seen = [(await client.get(lease)).status_code for lease in leases]

    assert seen == [404] * 2 + [200] * 8


@pytest.mark.parametrize("cookie", ["", "x", "~~~", "." * 5000, "\xff", "0" * 32 + ".short"])
async def test_a_cookie_that_is_none_of_ours_does_no_harm(service: RunningService, cookie: str) -> None:
    async with service.client(headers={"Cookie": f"lablink={cookie}".encode("latin-1")}) as client:
        assert (await client.get("/")).status_code == 200
        assert (await client.get("/leases/00000000-0000-0000-0000-000000000000")).status_code == 404


async def test_everybody_sees_how_the_pools_are_and_nobody_who_waits(
    database: Database, client: httpx.AsyncClient
) -> None:
    await database.vm("vm-1")
    await database.vm("vm-2", "booting")
    await ask(client)
    await ask(client, email="bob@example.org")

    async with asyncio.timeout(LIMIT_SECONDS):  # it is foretold by the next sweep
        while "To whoever asks now we say: A machine is yours" not in (page := await client.get("/status")).text:
            pass

    assert "No machine is free, one person waits" in page.text
    assert "One machine is booting" in page.text
    assert not any(secret in page.text for secret in ("ada@", "bob@", "vm-1"))


async def test_a_lease_says_why_it_is_where_it_is(database: Database, client: httpx.AsyncClient) -> None:
    await database.vm("vm-1", "booting")
    lease = await ask(client)
    assert f'hx-get="{lease}/why"' in (await client.get(lease)).text

    page = await client.get(f"{lease}/why")
    answer = await client.get(f"/api/v1{lease}/why")
    client.cookies.clear()
    strangers = await client.get(f"{lease}/why")

    assert "a machine of its pool is free: 1 booting" in page.text
    assert [(each["what"], each["holds"]) for each in answer.json()] == [
        ("a machine of its pool is free", False),
        ("nobody is before it", True),
        ("next", None),
    ]
    assert strangers.status_code == 401

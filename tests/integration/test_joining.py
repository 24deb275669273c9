"""Who asks with a join code is a member with that request; what is wrong with one says nothing to who guesses."""

import asyncio
import logging
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
import pytest_asyncio

from allocator.guesses import WRONG_TOKENS
from allocator.join_codes import code_sha256
from tests.support import LIMIT_SECONDS
from tests.support.database import Database
from tests.support.service import RunningService, connected

CODE = "K7MP-3XQ2-9RTW"
LEASES = "/api/v1/leases"
ADA, EVE = "ada@example.org", "eve@example.org"
WAITS = """
    SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
                   AND query LIKE '%request_vms%')
"""


@pytest_asyncio.fixture(autouse=True)
async def door(service: RunningService, owner: asyncpg.Connection) -> None:
    """A pool for members, of which a course has a share, and the course's code."""
    await owner.execute("INSERT INTO groups (name) VALUES ('course')")
    await owner.execute("INSERT INTO shares (pool, group_name) VALUES ('default', 'course')")
    await owner.execute("SELECT add_join_code('course', $1, 2, NULL, clock() + interval '1 day')", code_sha256(CODE))
    await owner.execute("UPDATE pools SET access = 'members'")


async def ask(client: httpx.AsyncClient, email: str = ADA, **more: str) -> httpx.Response:
    """Ask over the API."""
    return await client.post(LEASES, json={"email": email, "crd_command": "echo hi"} | more)


async def ask_form(client: httpx.AsyncClient, **more: str) -> httpx.Response:
    """Ask with the form, as a browser does."""
    sent = {"email": ADA, "crd_command": "echo hi"} | more
    return await client.post("/api/request_vm", data=sent, headers={"Accept": "text/html"})


async def members(owner: asyncpg.Connection) -> list[Any]:
    return [row["email"] for row in await owner.fetch("SELECT email FROM members ORDER BY email")]


async def test_a_code_makes_a_member_with_the_request_however_it_is_typed(
    client: httpx.AsyncClient, owner: asyncpg.Connection
) -> None:
    opened = await ask(client, join_code=" k7mp 3xq2-9rtw ")

    assert (opened.status_code, opened.json()["status"]) == (201, "queued")
    assert await members(owner) == [ADA]
    assert await owner.fetchval("SELECT group_name FROM leases") == "course"


async def test_the_machine_is_lent_and_told_as_without_a_code(client: httpx.AsyncClient, database: Database) -> None:
    await database.vm("vm-1")

    opened = await ask(client, join_code=CODE)
    again = await client.post(
        LEASES,
        json={"email": ADA, "crd_command": "echo hi", "join_code": CODE},
        headers={"Authorization": f"Bearer {opened.json()['token']}"},
    )

    assert (opened.json()["hostname"], again.status_code) == ("vm-1", 200)


async def test_a_request_that_is_repeated_takes_no_second_place(
    client: httpx.AsyncClient, owner: asyncpg.Connection
) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    wanted = {"email": ADA, "crd_command": "echo hi", "join_code": CODE}

    first, second = [await client.post(LEASES, json=wanted, headers=key) for _ in range(2)]

    assert first.json()["id"] == second.json()["id"]
    assert await members(owner) == [ADA]


async def test_who_is_no_member_is_told_to_ask_for_a_code(client: httpx.AsyncClient) -> None:
    refused, page = await ask(client), await ask_form(client)

    assert (refused.status_code, refused.json()["type"]) == (403, "urn:lablink:members-only")
    assert "workshop code" in refused.json()["detail"]
    assert page.status_code == 403 and 'id="code-wrong"' in page.text and 'value="ada@example.org"' in page.text


@pytest.mark.parametrize("code", ["WRONG", "K7MP-3XQ2-9RTX", "'; --", "é" * 100])
async def test_a_code_that_lets_nobody_in_is_refused_and_opens_no_lease(
    client: httpx.AsyncClient, owner: asyncpg.Connection, code: str
) -> None:
    refused, page = await ask(client, join_code=code), await ask_form(client, join_code=code)

    assert (refused.status_code, refused.json()["type"]) == (403, "urn:lablink:join-code-refused")
    assert page.status_code == 403 and "Check it letter by letter" in page.text
    assert (await members(owner), await owner.fetchval("SELECT count(*) FROM leases")) == ([], 0)


async def test_who_guesses_has_to_wait_and_who_has_the_code_has_not(client: httpx.AsyncClient) -> None:
    guesses = await asyncio.gather(*(ask(client, EVE, join_code=f"guess {n}") for n in range(WRONG_TOKENS)))

    last, page = await ask(client, EVE, join_code="another"), await ask_form(client, email=EVE, join_code="guess")
    good = await ask(client, "bob@example.org", join_code=CODE)

    assert ({each.status_code for each in guesses}, last.status_code) == ({403}, 429)
    assert page.status_code == 429 and "Too many" in page.text and EVE in page.text
    assert good.status_code == 201


async def test_a_classroom_that_types_badly_locks_nobody_out(client: httpx.AsyncClient) -> None:
    typos = [await ask(client, f"p{n}@example.org", join_code=f"K7MP-3XQ2-{n}") for n in range(WRONG_TOKENS + 1)]

    admin = await client.get("/api/v1/operations/1", headers={"Authorization": "Bearer unknown"})
    good = await ask(client, join_code=CODE)

    assert [typo.status_code for typo in typos] == [403] * len(typos)
    assert (good.status_code, admin.status_code) == (201, 401)


async def test_a_code_is_one_guess_however_it_is_typed(client: httpx.AsyncClient) -> None:
    await asyncio.gather(*(ask(client, EVE, join_code=f"guess {n}") for n in range(WRONG_TOKENS)))

    again = await ask(client, EVE, join_code="GUESS-0")

    assert again.status_code == 403


async def test_a_code_is_in_no_log_event_or_row(
    client: httpx.AsyncClient, owner: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    heard: list[object] = []
    for channel in ("vm_updates", "lease_updates"):
        await owner.add_listener(channel, lambda *told: heard.append(told))
    await ask(client, join_code=CODE)
    await ask(client, "bob@example.org", join_code="WRONG-CODE")
    await ask_form(client, join_code=CODE)

    rows = [str(await owner.fetch(f"SELECT * FROM {table}")) for table in ("events", "leases", "members", "join_codes")]
    told = "".join([caplog.text, str(heard), *rows])
    assert "lease.opened" in told
    assert not any(
        secret in told for secret in (CODE, CODE.replace("-", ""), "WRONG-CODE", code_sha256(CODE).hex()[:20])
    )


async def test_a_classroom_comes_in_at_once(
    client: httpx.AsyncClient, service: RunningService, owner: asyncpg.Connection
) -> None:
    await connected(service.service)
    await owner.execute("UPDATE join_codes SET max_people = 40")

    came = await asyncio.gather(*(ask(client, f"p{number}@example.org", join_code=CODE) for number in range(41)))

    assert sorted(each.status_code for each in came) == [201] * 40 + [403]
    assert len(await members(owner)) == 40


async def test_whoever_has_to_wait_keeps_nobody_else_from_joining(
    client: httpx.AsyncClient, database: Database, owner: asyncpg.Connection
) -> None:
    async def ask_again_and_again() -> None:
        while True:  # each time for two seconds
            await ask(client, join_code=CODE)

    in_the_way = await database.connect("lablink")
    async with in_the_way.transaction():
        await in_the_way.execute("INSERT INTO leases (email, kind) VALUES ($1, 'job')", ADA)
        waiting = asyncio.create_task(ask_again_and_again())
        async with asyncio.timeout(LIMIT_SECONDS):
            while not await owner.fetchval(WAITS):
                pass
        assert await owner.fetch("SELECT FROM join_codes FOR NO KEY UPDATE NOWAIT")
        waiting.cancel()
        await asyncio.wait([waiting])

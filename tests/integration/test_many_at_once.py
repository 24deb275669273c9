"""Many people at the same moment, each over a connection of their own: everybody is answered, and in turn."""

import asyncio
import json
from collections import Counter
from typing import Any
from urllib.parse import quote, urlsplit

import asyncpg
import pytest_asyncio

from tests.support import LIMIT_SECONDS
from tests.support.database import free_machines
from tests.support.service import RunningService, connected

PEOPLE = 500
MACHINES = 100

FIRST_COME = "SELECT max(place) FILTER (WHERE vm_id IS NOT NULL) < min(place) FILTER (WHERE vm_id IS NULL) FROM leases"


@pytest_asyncio.fixture(autouse=True)
async def has_served(service: RunningService) -> None:
    """Connections are open."""
    await connected(service.service)


def wanted(person: int) -> bytes:
    """A program's request."""
    body = json.dumps({"email": f"p{person}@example.org", "crd_command": "echo hi"})
    return posted("/api/v1/leases", "application/json", body)


def form(person: int) -> bytes:
    """What a browser sends."""
    body = f"email={quote(f'p{person}@example.org')}&crd_command=echo+hi&key=key-of-{person}"
    return posted("/api/request_vm", "application/x-www-form-urlencoded", body)


def posted(path: str, content_type: str, body: str) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


async def ask(service: RunningService, request: bytes) -> tuple[int, bytes]:
    """The status and the whole of the answer to a request, over a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(service.url).port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return int(answer.split(b" ", 2)[1]), answer


async def ask_all(service: RunningService, requests: list[bytes]) -> list[tuple[int, bytes]]:
    async with asyncio.timeout(LIMIT_SECONDS):
        return await asyncio.gather(*(ask(service, request) for request in requests))


def lease_in(answer: bytes) -> dict[str, Any]:
    lease: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return lease


async def test_five_hundred_at_once_are_all_answered_and_who_gets_no_machine_has_a_place_of_their_own(
    owner: asyncpg.Connection, service: RunningService
) -> None:
    await free_machines(owner, MACHINES)

    answers = await ask_all(service, [wanted(person) for person in range(PEOPLE)])

    leases = [lease_in(answer) for _, answer in answers]
    lent = [lease["hostname"] for lease in leases if lease["status"] == "assigned"]
    places = {lease["position"]: lease["id"] for lease in leases if lease["status"] == "queued"}
    queue = await owner.fetch("SELECT id::text FROM leases WHERE status = 'queued' ORDER BY place")
    assert Counter(status for status, _ in answers) == {201: PEOPLE}
    assert len(lent) == len(set(lent)) == MACHINES
    assert [places[place] for place in range(1, PEOPLE - MACHINES + 1)] == [row["id"] for row in queue]
    assert await owner.fetchval(FIRST_COME)
    assert await owner.fetch("SELECT * FROM broken_invariants()") == []


async def test_five_hundred_forms_at_once_each_lead_to_a_lease_of_their_own(
    owner: asyncpg.Connection, service: RunningService
) -> None:
    await free_machines(owner, PEOPLE)

    answers = await ask_all(service, [form(person) for person in range(PEOPLE)])

    led_to = {answer.partition(b"location: ")[2].partition(b"\r\n")[0] for _, answer in answers}
    assert Counter(status for status, _ in answers) == {303: PEOPLE}
    assert led_to == {f"/leases/{row['id']}".encode() for row in await owner.fetch("SELECT id FROM leases")}
    assert await owner.fetchval("SELECT count(DISTINCT vm_id) FROM leases WHERE status = 'assigned'") == PEOPLE


async def test_everybody_who_looks_at_once_sees_what_their_own_token_opens(service: RunningService) -> None:
    answers = await ask_all(service, [wanted(person) for person in range(20)])
    tokens = {lease["id"]: lease["token"] for lease in (lease_in(answer) for _, answer in answers)}

    looks = [(lease_id, token) for lease_id in tokens for token in tokens.values()]
    requests = [
        f"GET /api/v1/leases/{each} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        "Connection: close\r\n\r\n".encode()
        for each, token in looks
    ]
    seen = await ask_all(service, requests)

    assert [status for status, _ in seen] == [200 if tokens[each] == token else 404 for each, token in looks]

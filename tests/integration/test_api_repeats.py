"""Requests over the HTTP API that come again: with the same key, or from somebody who has a lease already."""

import asyncio
from uuid import uuid4

import httpx
import pytest

from tests.integration.test_api import LEASES, WANTED, bearer
from tests.support.database import Database


async def test_the_same_key_gives_the_same_lease_and_the_same_token(client: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": str(uuid4())}

    first = await client.post(LEASES, json=WANTED, headers=key)
    second = await client.post(LEASES, json=WANTED, headers=key)

    assert (first.status_code, second.status_code) == (201, 201)
    assert (second.json()["id"], second.json()["token"]) == (first.json()["id"], first.json()["token"])


async def test_a_repeated_request_is_answered_with_its_lease_also_when_that_is_over(client: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    first = await client.post(LEASES, json=WANTED, headers=key)
    await client.delete(first.headers["location"], headers=bearer(first))

    second = await client.post(LEASES, json=WANTED, headers=key)

    assert (second.json()["id"], second.json()["status"]) == (first.json()["id"], "cancelled")


@pytest.mark.parametrize("changed", [{"crd_command": "echo ho"}, {"pool": "default", "crd_command": "echo  hi"}])
async def test_a_key_that_was_used_for_another_request_is_refused(
    client: httpx.AsyncClient, changed: dict[str, str]
) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    await client.post(LEASES, json=WANTED, headers=key)

    answer = await client.post(LEASES, json=WANTED | changed, headers=key)

    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:lablink:key-reused"


async def test_one_persons_key_is_nothing_to_another(client: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "the-same"}

    first = await client.post(LEASES, json=WANTED, headers=key)
    second = await client.post(LEASES, json=WANTED | {"email": "bob@example.org"}, headers=key)

    assert second.status_code == 201
    assert second.json()["id"] != first.json()["id"]
    assert second.json()["token"] != first.json()["token"]


async def test_the_person_who_shows_the_token_is_given_their_live_lease_and_told_that_nothing_new_was_started(
    client: httpx.AsyncClient,
) -> None:
    first = await client.post(LEASES, json=WANTED)
    other = {"email": "ADA@Example.Org", "crd_command": "echo other"}

    again = await client.post(LEASES, json=other, headers=bearer(first))
    form = await client.post("/api/request_vm", data=other, headers=bearer(first) | {"Accept": "application/json"})

    assert first.json()["notice"] is None
    for answer in (again, form):
        assert answer.status_code == 200
        assert answer.json() | {"notice": None} == first.json()
        assert "not started" in answer.json()["notice"]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic YTpi"}])
async def test_the_e_mail_alone_opens_nothing(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    first = await client.post(LEASES, json=WANTED)

    answer = await client.post(LEASES, json=WANTED, headers=headers)

    assert answer.status_code == 409
    assert first.json()["id"] not in answer.text
    assert "ask your admin" in answer.json()["detail"]


async def test_twenty_requests_of_one_person_at_once_open_one_lease(
    database: Database, client: httpx.AsyncClient
) -> None:
    answers = await asyncio.gather(*(client.post(LEASES, json=WANTED) for _ in range(20)))

    owner = await database.connect()
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19
    assert await owner.fetchval("SELECT count(*) FROM leases") == 1


async def test_twenty_repeats_at_once_get_one_lease_and_one_token(client: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": str(uuid4())}

    answers = await asyncio.gather(*(client.post(LEASES, json=WANTED, headers=key) for _ in range(20)))

    assert {answer.status_code for answer in answers} == {201}
    assert len({(answer.json()["id"], answer.json()["token"]) for answer in answers}) == 1


IN_THE_WAY = """
    CREATE SEQUENCE looks;
    CREATE FUNCTION met() RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
    BEGIN
        IF nextval('looks') <= 3 THEN RAISE deadlock_detected; END IF;
        RETURN true;
    END $$;
    ALTER VIEW lease_views RENAME TO lease_views_in_peace;
    CREATE VIEW lease_views AS SELECT * FROM lease_views_in_peace WHERE met();
    GRANT SELECT ON lease_views TO lablink_app;
    GRANT EXECUTE ON FUNCTION met TO lablink_app;
"""
"""Whoever looks at a lease first meets another change three times."""


async def test_a_look_that_meets_another_change_is_made_again(database: Database, client: httpx.AsyncClient) -> None:
    opened = await client.post(LEASES, json=WANTED)
    await (await database.connect()).execute(IN_THE_WAY)

    answer = await client.get(opened.headers["location"], headers=bearer(opened))

    assert (answer.status_code, answer.json()["status"]) == (200, "queued")

"""A lease is made longer over the HTTP API and on its page, or it is said why not."""

import httpx

from tests.integration.test_api import LEASES, WANTED, bearer
from tests.support.database import Database
from tests.support.service import PlayedClient


async def test_why_a_lease_is_not_made_longer_is_said_where_its_holder_asks(
    database: Database, client: httpx.AsyncClient
) -> None:
    machine = await PlayedClient.of(await database.vm())
    opened = await client.post(LEASES, json=WANTED)
    await machine.claim()
    await machine.report("started")
    owner = await database.connect()
    await owner.execute("UPDATE pools SET extend_seconds = 0")

    answer = await client.post(f"{opened.headers['location']}/extension", headers=bearer(opened))
    client.cookies.clear()
    await client.post(f"/leases/{opened.json()['id']}/return", headers=bearer(opened))
    page = await client.post(f"/leases/{opened.json()['id']}/extension")

    assert (answer.status_code, answer.json()["type"]) == (409, "urn:lablink:not-longer")
    assert answer.json()["detail"].startswith("Leases of this pool are not made longer. Save what you need")
    assert page.status_code == 409
    assert "Leases of this pool are not made longer." in page.text

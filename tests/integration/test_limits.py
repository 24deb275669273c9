"""Groups, quotas and money as people meet them: over the API, on the page, in `lablink pools` and in the settings."""

from pathlib import Path

import asyncpg
import httpx

from allocator import standing
from tests.support.admin import answer
from tests.support.database import Database
from tests.support.service import settings_for

LEASES = "/api/v1/leases"


def wanted(name: str) -> dict[str, str]:
    return {"email": f"{name}@example.org", "crd_command": "echo hi"}


async def test_the_settings_name_what_a_pool_allows(database: Database, tmp_path: Path) -> None:
    limits = ("access=members", "per_person=2", "price_per_hour=0.526", "budget=500", "currency=EUR")
    settings = settings_for(database, tmp_path, *(f"pool.{each}" for each in (*limits, "time_zone=Europe/Berlin")))
    service = await database.connect("lablink_app")
    owner = await database.connect()

    await standing.ensure_settings(service, settings.pool, settings.transport)

    row = await owner.fetchrow("SELECT access, per_person, price_per_hour, budget, currency, time_zone FROM pools")
    assert row and [str(each) for each in row] == ["members", "2", "0.526", "500", "EUR", "Europe/Berlin"]


async def test_a_spent_budget_is_a_problem_that_says_how_much_of_what(
    database: Database, client: httpx.AsyncClient
) -> None:
    owner = await database.connect()
    await owner.execute("UPDATE pools SET price_per_hour = 1, lease_seconds = 3600, budget = 1.5")
    first = await client.post(LEASES, json=wanted("ada"))

    refused = await client.post(LEASES, json=wanted("bob"))
    on_the_page = await client.post("/api/request_vm", data=wanted("bob"), headers={"Accept": "text/html"})

    said = "Of 1.5 USD for this month 0.00 are spent, and leases that are open now may cost 1.00 more."
    assert first.status_code == 201
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:lablink:budget-spent")
    assert refused.json()["detail"].startswith(said)
    assert said in on_the_page.text


async def test_whose_group_has_what_it_may_have_is_told_so(
    database: Database, client: httpx.AsyncClient, owner: asyncpg.Connection
) -> None:
    await owner.execute("INSERT INTO groups VALUES ('biology', 1)")
    await owner.execute("INSERT INTO members VALUES ('ada@example.org', 'biology'), ('bob@example.org', 'biology')")
    await database.vm("vm-1")
    await database.vm("vm-2")
    await client.post(LEASES, json=wanted("ada"))

    waits = await client.post(LEASES, json=wanted("bob"))
    token = {"Authorization": f"Bearer {waits.json()['token']}"}
    page = await client.get(f"/leases/{waits.json()['id']}", headers=token)

    assert (waits.json()["status"], waits.json()["held_back"]) == ("queued", "biology has 1 of its 1 machine")
    assert "Your group biology has 1 of its 1 machine; yours comes when one of them is given back." in page.text


async def test_the_list_of_pools_says_what_is_spent(database: Database, owner: asyncpg.Connection) -> None:
    await owner.execute("UPDATE pools SET price_per_hour = 2, lease_seconds = 3600, budget = 100")
    await owner.execute("INSERT INTO leases (email, kind) VALUES ('ada@example.org', 'typed')")

    [pool] = await answer(database, "pools", "list")

    assert [pool[name] for name in ("spent", "promised", "budget", "currency")] == [0, 2, 100, "USD"]

"""Who does not come while a machine is kept for them is passed over: the next person has it, and then they are next."""

from uuid import UUID

import httpx

from tests.integration.test_api import LEASES, bearer
from tests.support.database import Database
from tests.support.machine import Machine, Pool
from tests.support.service import DESKTOP_LINE


async def becomes(client: httpx.AsyncClient, pool: Pool, opened: httpx.Response, status: str) -> httpx.Response:
    """The lease as its holder sees it, once it is that."""
    await pool.until("SELECT status = $2 FROM leases WHERE id = $1", UUID(opened.json()["id"]), status)
    return await client.get(opened.headers["location"], headers=bearer(opened))


async def test_the_machine_goes_to_the_next_in_line_and_who_comes_back_is_next(
    database: Database, client: httpx.AsyncClient, pool: Pool, machine: Machine
) -> None:
    line = {"crd_command": DESKTOP_LINE}
    ada = await client.post(LEASES, json={"email": "ada@example.org"})
    bob, cyd = [await client.post(LEASES, json={"email": f"{name}@example.org"} | line) for name in ("bob", "cyd")]
    async with machine.serving():
        await database.age(UUID(ada.json()["id"]), 400)
        await becomes(client, pool, bob, "active")

        away = await becomes(client, pool, ada, "queued")
        assert (away.json()["passed_over"], away.json()["position"], away.json()["failure"]) == (True, None, None)
        page = await client.get(f"/leases/{ada.json()['id']}", headers=bearer(ada))
        assert "Your place is kept" in page.text and 'id="fresh"' in page.text
        assert 'class="plate"' not in page.text  # a place that is kept has no number

        back = await client.put(f"{ada.headers['location']}/line", headers=bearer(ada), json=line)
        assert (back.json()["status"], back.json()["position"]) == ("queued", 1)
        await client.delete(bob.headers["location"], headers=bearer(bob))
        await becomes(client, pool, ada, "active")
        assert (await becomes(client, pool, cyd, "queued")).json()["position"] == 1
    assert machine.count_starts() == 2
    assert await pool.owner.fetch("SELECT * FROM broken_invariants()") == []

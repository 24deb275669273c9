"""`/api/v1/pools`: what everybody sees of them, and an admin who pauses one or asks why."""

import asyncpg
import httpx

from tests.support.database import Database
from tests.support.fleet import ADMIN, admin

POOLS = "/api/v1/pools"
PAUSE = f"{POOLS}/default/pause"


async def test_everybody_sees_how_large_pools_are_and_what_comes_next(
    client: httpx.AsyncClient, owner: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE pools SET max_machines = 9, min_machines = 2")

    [pool] = (await client.get(POOLS)).json()

    assert (pool["name"], pool["wanted"], pool["missing"], pool["stopped"]) == ("default", 2, 2, False)


async def test_an_admin_pauses_a_pool_and_whoever_asks_is_told(
    client: httpx.AsyncClient, owner: asyncpg.Connection
) -> None:
    await admin(owner)
    paused = await client.put(PAUSE, headers=ADMIN)
    lease = (await client.post("/api/v1/leases", json={"email": "ada@example.org"})).json()
    resumed = await client.delete(PAUSE, headers=ADMIN)

    assert paused.json()["paused"] and not resumed.json()["paused"]
    assert (lease["status"], lease["paused"], lease["eta_seconds"]) == ("queued", True, None)
    rows = await owner.fetch("SELECT kind, actor FROM events WHERE kind LIKE 'pool.%' ORDER BY id")
    assert [tuple(row) for row in rows] == [("pool.paused", "admin:ada"), ("pool.resumed", "admin:ada")]


async def test_nobody_else_may_and_no_other_pool_is_paused(
    client: httpx.AsyncClient, owner: asyncpg.Connection
) -> None:
    assert (await client.put(PAUSE)).status_code == 401
    await admin(owner)
    answer = await client.put(f"{POOLS}/gpu/pause", headers=ADMIN)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:lablink:no-such-pool")
    assert not await owner.fetchval("SELECT paused FROM pools")


async def test_an_admin_asks_why_of_machines_and_pools_and_nobody_else_does(
    client: httpx.AsyncClient, database: Database, owner: asyncpg.Connection
) -> None:
    await database.vm("vm-1")
    await owner.execute("UPDATE vms SET draining = true")
    vm, pool = "/api/v1/vms/vm-1/why", f"{POOLS}/default/why"
    assert [(await client.get(path)).status_code for path in (vm, pool)] == [401, 401]
    await admin(owner)
    for path, what in ((vm, "it is not being emptied"), (pool, "a machine is free")):
        told = (await client.get(path, headers=ADMIN)).json()
        assert [each["holds"] for each in told if each["what"] == what] == [False]
        assert told[-1]["what"] == "next" and told[-1]["detail"]
    missing = [await client.get(path, headers=ADMIN) for path in ("/api/v1/vms/vm-9/why", f"{POOLS}/gpu/why")]
    types = [(answer.status_code, answer.json()["type"]) for answer in missing]
    assert types == [(404, "urn:lablink:no-such-vm"), (422, "urn:lablink:no-such-pool")]

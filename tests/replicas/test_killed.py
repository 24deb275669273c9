"""An allocator is killed: its machines, its pages and whoever had just asked go on at another."""

import asyncio
from pathlib import Path

import httpx
from playwright.async_api import Browser, expect

from tests.replicas.conftest import MACHINES, Replicas
from tests.support import LIMIT_SECONDS
from tests.support.database import Database
from tests.support.service import NO_TLS

DOOR = """
    CREATE TABLE door ();
    CREATE FUNCTION wait_at_door() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS
        $$ BEGIN LOCK TABLE door IN SHARE MODE; RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER wait_at_door AFTER INSERT ON leases DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION wait_at_door();
"""
"""At which a request waits for as long as somebody keeps it shut, however little patience it has with other locks: it
commits, which no time limit ends."""

WAITS = """
    SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usename = 'lablink_app' AND wait_event_type = 'Lock'
                   AND query LIKE '%request_vms%')
"""

WANTED = {"email": "ada@example.org", "crd_command": "sh -c :", "key": "the form's"}


async def test_its_machines_and_its_open_page_are_live_again_at_another(
    replicas: Replicas, browser: Browser, tmp_path: Path
) -> None:
    tab, victim = await replicas.followed(browser, tmp_path / "go")

    await victim.kill()
    (tmp_path / "go").touch()

    await tab.shows("Your command is done")
    await expect(tab.page.get_by_text("Not connected; trying again …")).to_have_count(0)
    await replicas.all_connected(replicas.others(victim))
    await tab.page.get_by_text("Give the machine back …").click()
    await tab.page.get_by_role("button", name="Give the machine back now").click()
    await tab.shows("This lease is over")
    await replicas.pool.until("SELECT count(*) = $1 FROM vms WHERE status = 'available'", MACHINES)
    assert await replicas.pool.owner.fetch("SELECT * FROM broken_invariants()") == []


async def test_a_form_that_was_under_way_opens_one_lease_however_often_it_is_sent(
    replicas: Replicas, database: Database
) -> None:
    keeper = await database.connect("lablink")
    await keeper.execute(DOOR)
    victim = replicas.allocators[0]
    async with (
        httpx.AsyncClient(base_url=victim.url, timeout=LIMIT_SECONDS, verify=NO_TLS) as before,
        httpx.AsyncClient(base_url=replicas.url, timeout=LIMIT_SECONDS, verify=NO_TLS) as after,
    ):
        async with keeper.transaction():
            await keeper.execute("LOCK TABLE door")
            sent = asyncio.create_task(before.post("/api/request_vm", data=WANTED))
            await replicas.pool.until(WAITS)
            await victim.kill()
            await asyncio.wait([sent])
        await replicas.pool.until("SELECT count(*) = 1 FROM leases")  # the database was asked, and has not noticed
        answers = [await after.post("/api/request_vm", data=WANTED) for _ in range(2)]

    assert isinstance(sent.exception(), httpx.TransportError)
    lease = await replicas.pool.owner.fetchval("SELECT id FROM leases")
    assert [each.headers.get("Location") for each in answers] == [f"/leases/{lease}"] * 2

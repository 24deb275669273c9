"""A bad image does not eat the queue: where machines fail by the dozen, nobody is led from one to the next."""

from collections import Counter

import asyncpg

from tests.sql.steps import Machine, ask, machine, machines
from tests.support.database import Database

FLEET, PEOPLE = 20, 10
MAY_FAIL = 4
"""A fifth of the fleet."""

STATUSES = "SELECT status, count(*) FROM leases GROUP BY status"
LENT = "SELECT hostname, epoch FROM vms WHERE status = 'in-use' ORDER BY updated_at DESC, id LIMIT 1"
SPARES = "SELECT count(*) FROM vms WHERE status = 'available'"
ALERTS = "SELECT detail::jsonb ->> 'failed' FROM events WHERE kind = 'alert.failing'"


async def statuses(owner: asyncpg.Connection) -> Counter[str]:
    return Counter({row["status"]: row["count"] for row in await owner.fetch(STATUSES)})


async def why(owner: asyncpg.Connection, question: str) -> dict[str, str]:
    """What is said, by what it is about."""
    return {row["what"]: row["detail"] for row in await owner.fetch(f"SELECT * FROM {question}")}


async def with_people(database: Database, service: asyncpg.Connection) -> list[Machine]:
    """A fleet of which half is lent; who has which machine is as they came."""
    fleet = await machines(database, FLEET)
    for number in range(PEOPLE):
        await ask(service, f"u{number}@example.org")
    return fleet


async def fail(owner: asyncpg.Connection, fleet: list[Machine], number: int) -> None:
    """So many of the machines that are lent at this moment find that they are not well."""
    for _ in range(number):
        row = await owner.fetchrow(LENT)
        assert row is not None
        await next(vm for vm in fleet if vm.hostname == row["hostname"]).unhealthy(row["epoch"], "no GPU")


async def a_minute_passes(owner: asyncpg.Connection) -> None:
    """Nothing failed in it, and every machine was heard."""
    await owner.execute("UPDATE pools SET rests_until = rests_until - interval '61 seconds'")
    await owner.execute("ALTER TABLE vms DISABLE TRIGGER USER")
    await owner.execute("UPDATE vms SET updated_at = updated_at - interval '61 seconds'")
    await owner.execute("ALTER TABLE vms ENABLE TRIGGER USER")
    await owner.execute("UPDATE vm_heartbeats SET seen_at = clock()")


async def test_when_more_than_a_fifth_fail_within_a_minute_the_spares_are_kept_and_an_admin_is_told(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    fleet = await with_people(database, service)

    await fail(owner, fleet, MAY_FAIL)
    assert (await statuses(owner), await owner.fetchval(SPARES)) == ({"assigned": PEOPLE}, PEOPLE - MAY_FAIL)
    await fail(owner, fleet, 3)

    assert await statuses(owner) == {"assigned": PEOPLE - 3, "queued": 3}
    assert await owner.fetchval(SPARES) == PEOPLE - MAY_FAIL
    assert [row[0] for row in await owner.fetch(ALERTS)] == ["5"]
    said = await why(owner, "why_pool('default')")
    assert said["its machines are well"].startswith("many failed within a minute")
    waits = await owner.fetchval("SELECT id FROM leases WHERE status = 'queued' LIMIT 1")
    assert "its machines are well" in await why(owner, f"why_lease('{waits}')")
    assert await owner.fetch("SELECT * FROM broken_invariants()") == []


async def test_after_the_rest_a_few_are_tried_and_when_they_work_the_others_follow(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    fleet = await with_people(database, service)
    await fail(owner, fleet, PEOPLE)
    assert (await statuses(owner))["queued"] == PEOPLE - MAY_FAIL
    await owner.execute("UPDATE leases SET status = 'cancelled' WHERE status = 'assigned'")
    await service.execute("SELECT sweep_queue()")
    assert "assigned" not in await statuses(owner)

    await a_minute_passes(owner)
    await service.execute("SELECT sweep_queue()")
    assert (await statuses(owner))["assigned"] == MAY_FAIL

    for hostname in [row[0] for row in await owner.fetch("SELECT hostname FROM vms WHERE status = 'in-use'")]:
        await next(vm for vm in fleet if vm.hostname == hostname).run()
    await service.execute("SELECT sweep_queue()")
    assert (await statuses(owner))["queued"] == 0


async def test_what_an_admin_takes_out_says_nothing_about_the_others(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await with_people(database, service)
    await owner.execute("UPDATE vms SET status = 'failed' WHERE status = 'in-use'")
    assert (await statuses(owner), await owner.fetchval(SPARES)) == ({"assigned": PEOPLE}, 0)
    assert await owner.fetch(ALERTS) == []


async def test_three_machines_may_fail_of_any_fleet(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    fleet = await machines(database, 4)
    await ask(service)
    await fail(owner, fleet, 3)
    assert await statuses(owner) == {"assigned": 1}
    assert await owner.fetch(ALERTS) == []


async def test_a_machine_that_kept_failing_comes_back_by_an_admin_only(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    for number in range(3):
        await ask(service, f"u{number}@example.org")
        orders = await vm.hello(None)
        lease = (await vm.claim(orders["epoch"]))["lease_id"]
        await vm.report(lease, orders["epoch"], "failed", failure="command-failed")
        if number < 2:
            await vm.clean()

    assert (await vm.hello(None))["status"] == "failed"
    said = await why(owner, "why_vm('vm-1')")
    assert "three leases in a row failed on it" in said["it is available"]
    assert said["next"] == "an admin returns it: lablink vms return vm-1"
    await owner.execute("SELECT return_vm('vm-1')")
    await vm.clean()
    assert (await vm.hello(None))["status"] == "available"

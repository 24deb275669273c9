"""The fleet's record in the database: who is wanted, who goes, and that nobody's machine does."""

import json
from collections.abc import Sequence

import asyncpg
import pytest

from tests.sql.steps import ADA, BOB, ask, lease_of, lent, machine, refused, row_of
from tests.support.database import Database

GROW = "SELECT grow_fleet($1, 'default', 'vm', NULL, NULL, NULL)"


async def made(owner: asyncpg.Connection, *hostnames: str) -> list[str]:
    """Have these machines wanted, made and invited; returns who had to be invited."""
    await owner.execute(
        "INSERT INTO fleet_vms (hostname) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING", list(hostnames)
    )
    names = {name: f"i-{name}" for name in hostnames}
    rows = await owner.fetch("SELECT * FROM record_made($1)", json.dumps(names))
    await owner.execute("UPDATE fleet_vms SET invited_at = clock() WHERE instance_id IS NOT NULL")
    return [row["hostname"] for row in rows]


async def wanted(owner: asyncpg.Connection) -> list[str]:
    return [row[0] for row in await owner.fetch("SELECT hostname FROM fleet_vms WHERE wanted ORDER BY hostname")]


async def kinds(owner: asyncpg.Connection, hostname: str) -> Sequence[str]:
    rows = await owner.fetch("SELECT kind FROM events WHERE hostname = $1 ORDER BY id", hostname)
    return [row["kind"] for row in rows]


async def failed(owner: asyncpg.Connection, hostname: str = "vm-1", reason: str = "lost") -> None:
    await owner.execute("UPDATE vms SET status = 'failed', reason = $2 WHERE hostname = $1", hostname, reason)


async def test_a_draining_machine_is_not_lent_until_it_is_returned(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await machine(database)
    assert await owner.fetchval("SELECT drain_vms(ARRAY['vm-1', 'vm-9'])") == ["vm-1"]
    lease = (await ask(service))["lease_id"]
    assert (await lease_of(owner, lease))["status"] == "queued"
    assert await owner.fetchval("SELECT unassigned_vms_count()") == 0
    assert "draining" in await owner.fetchval("SELECT why FROM vm_status")

    assert await owner.fetchval("SELECT return_vm('vm-1')") == "available"
    await service.execute("SELECT sweep_queue()")

    assert (await lease_of(owner, lease))["status"] == "assigned"
    assert {"vm.draining", "vm.undrained"} <= set(await kinds(owner, "vm-1"))


async def test_who_is_on_a_machine_that_drains_keeps_it_and_the_next_waits(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await lent(database, service)
    await owner.execute("SELECT drain_vms(ARRAY['vm-1'])")
    next_lease = (await ask(service, BOB))["lease_id"]
    assert (await lease_of(owner, lease))["status"] == "active"

    await service.execute("SELECT end_lease($1)", lease)
    await vm.clean()

    assert (await row_of(owner))["status"] == "available"
    assert (await lease_of(owner, next_lease))["status"] == "queued"


async def test_a_machine_that_enrols_anew_drains_no_more(database: Database, owner: asyncpg.Connection) -> None:
    await machine(database)
    await owner.execute("UPDATE vms SET draining = true")
    await owner.execute("SELECT retire_vm('vm-1')")
    assert (await row_of(owner))["draining"] is False


async def test_what_grows_takes_names_that_nobody_has(database: Database, owner: asyncpg.Connection) -> None:
    await machine(database, "vm-2")
    assert await owner.fetchval(GROW, 3) == ["vm-1", "vm-3", "vm-4"]


async def test_growing_again_after_an_interruption_wants_no_more_than_was_asked(owner: asyncpg.Connection) -> None:
    first = await owner.fetchval(GROW, 3)
    assert await owner.fetchval(GROW, 3) == first
    await made(owner, *first)
    assert len(await owner.fetchval(GROW, 3)) == 3
    assert len(await wanted(owner)) == 6


async def test_a_pool_that_is_not_there_does_not_grow(owner: asyncpg.Connection) -> None:
    with refused("LL005"):
        await owner.execute("SELECT grow_fleet(1, 'nothing', 'vm', NULL, NULL, NULL)")
    with refused("LL005"):
        await owner.execute("INSERT INTO fleet_vms (hostname, pool) VALUES ('vm-1', 'nothing')")


async def test_a_machine_that_is_there_keeps_its_pool(owner: asyncpg.Connection) -> None:
    await owner.execute("INSERT INTO pools (name) VALUES ('gpu')")
    [hostname] = await owner.fetchval(GROW, 1)
    await owner.execute("UPDATE fleet_vms SET pool = 'gpu'")
    await made(owner, hostname)
    with refused("23514"):
        await owner.execute("UPDATE fleet_vms SET pool = 'default'")


async def test_shrinking_lets_go_of_what_is_out_of_service_then_of_what_is_idle_longest(
    database: Database, owner: asyncpg.Connection
) -> None:
    for name in ("vm-1", "vm-2", "vm-3"):
        await machine(database, name)
    await made(owner, "vm-1", "vm-2", "vm-3", "vm-4")
    await failed(owner, "vm-3")

    assert await owner.fetchval("SELECT shrink_fleet(2)") == ["vm-3", "vm-4"]
    assert await owner.fetchval("SELECT shrink_fleet(3)") == ["vm-3", "vm-4", "vm-1"]
    assert await wanted(owner) == ["vm-2"]
    assert (await row_of(owner, "vm-1"))["status"] == "retired"


async def test_shrinking_takes_nobodys_machine(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await lent(database, service)
    await made(owner, "vm-1", "vm-2")
    with refused("LL003"):
        await owner.execute("SELECT shrink_fleet(2)")
    assert await wanted(owner) == ["vm-1", "vm-2"]
    assert await owner.fetchval("SELECT shrink_fleet(1)") == ["vm-2"]


async def test_who_is_on_a_machine_that_an_admin_wants_no_more_keeps_it_when_the_fleet_shrinks(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await lent(database, service)
    await machine(database, "vm-2")
    await made(owner, "vm-1", "vm-2")
    await owner.execute("UPDATE fleet_vms SET wanted = false WHERE hostname = 'vm-1'")

    assert await owner.fetchval("SELECT shrink_fleet(2)") == ["vm-1", "vm-2"]
    assert (await lease_of(owner, lease))["status"] == "active"
    assert [(await row_of(owner, name))["status"] for name in ("vm-1", "vm-2")] == ["in-use", "retired"]


async def test_whoever_waits_lets_go_of_what_is_unwanted_then_of_what_is_idle_last_of_what_is_somebodys(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await lent(database, service)
    await machine(database, "vm-2")
    await made(owner, "vm-1", "vm-2", "vm-3")
    await owner.execute("UPDATE fleet_vms SET wanted = false WHERE hostname = 'vm-3'")

    rows = await owner.fetch("SELECT * FROM leaving_order(NULL)")
    assert [(row["hostname"], row["wanted"], row["held"]) for row in rows] == [
        ("vm-3", False, False),
        ("vm-2", True, False),
        ("vm-1", True, True),
    ]


async def test_nothing_is_retired_when_somebody_is_on_one_of_them(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await lent(database, service)
    await machine(database, "vm-2")
    assert await owner.fetchval("SELECT retire_idle_vms(ARRAY['vm-1', 'vm-2'])") == ["vm-1"]
    assert (await row_of(owner, "vm-2"))["status"] == "available"
    assert await owner.fetchval("SELECT retire_idle_vms(ARRAY['vm-2'])") == []
    assert [tuple(row)[:2] for row in await owner.fetch("SELECT * FROM held_vms(ARRAY['vm-1', 'vm-2'])")] == [
        ("vm-1", ADA)
    ]


async def test_an_invitation_of_before_is_worth_nothing_once_its_machine_goes(owner: asyncpg.Connection) -> None:
    await owner.execute("SELECT invite_vm('vm-1', 'default', sha256('token'), 60)")
    await owner.execute("SELECT retire_idle_vms(ARRAY['vm-1'])")
    assert await owner.fetchval("SELECT count(*) FROM join_tokens") == 0


async def test_only_instances_that_are_new_are_invited(owner: asyncpg.Connection) -> None:
    assert await made(owner, "vm-1", "vm-2") == ["vm-1", "vm-2"]
    changed = json.dumps({"vm-1": "i-vm-1", "vm-2": "i-another"})
    rows = await owner.fetch("SELECT * FROM record_made($1)", changed)
    assert [row["hostname"] for row in rows] == ["vm-2"]


async def test_what_was_removed_is_forgotten_and_what_is_wanted_is_not(owner: asyncpg.Connection) -> None:
    await made(owner, "vm-1", "vm-2")
    await owner.execute("UPDATE fleet_vms SET wanted = false WHERE hostname = 'vm-1'")
    await owner.execute("SELECT * FROM record_made('{}')")
    assert await wanted(owner) == ["vm-2"]
    assert await owner.fetchval("SELECT why FROM fleet_status") == "to be made by the next apply"


async def test_whoever_had_an_instance_that_is_gone_waits_for_another(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await lent(database, service)
    await made(owner, "vm-1", "vm-2")
    assert await owner.fetchval("SELECT lose_instances(ARRAY['i-vm-1', 'i-other'])") == ["vm-1"]
    assert (await row_of(owner))["status"] == "retired"
    assert (await lease_of(owner, lease))["trouble"] == "vm-deleted"
    assert "fleet.gone" in await kinds(owner, "vm-1")


@pytest.mark.parametrize(("reason", "act"), [("lost", "reboot"), ("unhealthy: no disk", "reboot"), ("mine", None)])
async def test_what_failed_by_itself_is_rebooted_and_what_an_admin_holds_is_not(
    database: Database, owner: asyncpg.Connection, reason: str, act: str | None
) -> None:
    await machine(database)
    await made(owner, "vm-1")
    await failed(owner, reason=reason)
    assert await owner.fetch("SELECT * FROM fleet_repairs(60)") == []
    await database.let_pass(61)
    assert [row["act"] for row in await owner.fetch("SELECT * FROM fleet_repairs(60)")] == ([act] if act else [])


async def test_in_a_pool_that_is_paused_nothing_is_rebooted_or_replaced(
    database: Database, owner: asyncpg.Connection
) -> None:
    await machine(database)
    await made(owner, "vm-1")
    await failed(owner)
    await database.let_pass(61)
    await owner.execute("UPDATE pools SET paused = true")
    assert await owner.fetch("SELECT * FROM fleet_repairs(60)") == []
    assert await owner.fetchval("SELECT begin_reboot('vm-1', 60)") is None
    await owner.execute("UPDATE pools SET paused = false")
    assert await owner.fetchval("SELECT begin_reboot('vm-1', 60)") == "i-vm-1"


async def test_after_three_reboots_a_machine_is_replaced(database: Database, owner: asyncpg.Connection) -> None:
    await machine(database)
    await made(owner, "vm-1")
    await failed(owner)
    for time in range(1, 4):
        await database.let_pass(time * 61)
        assert await owner.fetchval("SELECT begin_reboot('vm-1', 60)") == "i-vm-1"
        assert await owner.fetchval("SELECT begin_reboot('vm-1', 60)") is None
    await database.let_pass(4 * 61)
    assert [tuple(row) for row in await owner.fetch("SELECT * FROM fleet_repairs(60)")] == [("vm-1", "replace")]
    assert (await row_of(owner))["reason"] == "unhealthy: rebooted, because it was lost"


async def test_what_could_not_be_replaced_is_tried_again_later(database: Database, owner: asyncpg.Connection) -> None:
    await machine(database)
    await made(owner, "vm-1")
    await failed(owner)
    await owner.execute("UPDATE fleet_vms SET reboots = 3")
    await database.let_pass(61)
    await owner.execute(
        "INSERT INTO operations (kind, started_by, status, finished_at, error) "
        "VALUES ('fleet replace', 'fleet watch', 'failed', clock(), 'no capacity')"
    )
    assert await owner.fetch("SELECT * FROM fleet_repairs(60)") == []
    await database.let_pass(122)
    assert [row["act"] for row in await owner.fetch("SELECT * FROM fleet_repairs(60)")] == ["replace"]


async def test_a_machine_that_came_back_by_itself_is_not_rebooted(
    database: Database, owner: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await made(owner, "vm-1")
    await failed(owner)
    await vm.clean()
    assert await owner.fetchval("SELECT begin_reboot('vm-1', 0)") is None


async def test_a_rebooted_machine_is_lent_again_once_it_was_heard_long_after(
    database: Database, owner: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await made(owner, "vm-1")
    await failed(owner)
    await database.let_pass(1)
    await owner.execute("SELECT begin_reboot('vm-1', 0)")
    assert (await vm.hello(None))["status"] == "failed"
    assert await owner.fetchval("SELECT end_reboots()") == 0

    await database.let_pass(302)
    await vm.hello(None)

    assert await owner.fetchval("SELECT end_reboots()") == 1
    await vm.clean()
    assert (await row_of(owner))["status"] == "available"


async def test_reboots_are_forgotten_after_a_day_in_service(database: Database, owner: asyncpg.Connection) -> None:
    await machine(database)
    await made(owner, "vm-1")
    await owner.execute("UPDATE fleet_vms SET reboots = 2, rebooted_at = clock() - interval '2 days'")
    await owner.execute("SELECT end_reboots()")
    assert await owner.fetchval("SELECT reboots FROM fleet_vms") == 0

"""Whoever loses a machine keeps the lease: it moves on, and its holder is asked for what it lacks then."""

import json
from uuid import UUID

import asyncpg
import pytest

from tests.sql.steps import BOB, REDIRECT, Machine, ask, claimed, lease_of, machine, refused, row_of
from tests.support.database import Database

FRESH = json.dumps({"code": "4/0AfreshCODEfreshCODE", "pin": "654321654321"})


async def renew(service: asyncpg.Connection, lease: UUID) -> str:
    command = json.dumps({"redirect_url": REDIRECT})
    return str(await service.fetchval("SELECT renew_line($1, $2, $3, 'start-host --code=***')", lease, command, FRESH))


async def with_a_job(database: Database, service: asyncpg.Connection, restarts: bool) -> tuple[Machine, UUID]:
    """A job that runs on vm-1, in a pool that lets it start again elsewhere or does not."""
    await service.execute("SELECT ensure_pool('default', true, ARRAY['echo'], 600, 90, 600)")
    await service.execute(
        "SELECT ensure_settings('default', jsonb_build_object('restart_on_move', $1::boolean))", restarts
    )
    vm = await machine(database)
    lease = (await ask(service, argv=["echo", "hello"]))["lease_id"]
    await vm.claim(1)
    assert await vm.report(lease, 1, "started") == "active"
    return vm, lease


async def test_a_desktop_moves_to_a_spare_and_its_holder_is_asked_for_a_fresh_line(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await claimed(database, service)
    spare = await machine(database, "vm-2")
    await vm.unhealthy(1, "the disk is full")

    moved = await lease_of(owner, lease)
    assert (moved["status"], moved["hostname"], moved["needs_line"], moved["trouble"], moved["moves"]) == (
        "assigned",
        "vm-2",
        True,
        "vm-failed",
        1,
    )
    assert (await spare.hello())["kind"] == "hold"
    with refused("LL008"):
        await spare.claim(1)

    assert await renew(service, lease) == "assigned"
    orders = await spare.hello()
    assert (orders["epoch"], orders["kind"], orders["lease_status"]) == (2, "desktop", "assigned")
    assert json.loads((await spare.claim(2))["secrets"])["pin"] == "654321654321"
    assert await spare.report(lease, 2, "exited", 0) == "active"


async def test_without_a_spare_they_wait_before_all_who_came_later(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await claimed(database, service)
    later = (await ask(service, BOB))["lease_id"]
    await owner.execute("UPDATE vms SET status = 'failed' WHERE hostname = 'vm-1'")
    views = {row["id"]: row["position"] for row in await owner.fetch("SELECT id, position FROM lease_views")}
    assert views == {lease: 1, later: 2}

    await machine(database, "vm-2")
    assert (await lease_of(owner, lease))["hostname"] == "vm-2"
    assert (await lease_of(owner, later))["status"] == "queued"


@pytest.mark.parametrize("restarts", [True, False])
async def test_a_job_starts_again_where_its_pool_lets_it(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, restarts: bool
) -> None:
    _, lease = await with_a_job(database, service, restarts)
    spare = await machine(database, "vm-2")
    ends = (await lease_of(owner, lease))["expires_at"]
    await owner.execute("DELETE FROM vms WHERE hostname = 'vm-1'")

    moved = await lease_of(owner, lease)
    if restarts:
        assert (moved["status"], moved["hostname"], moved["started_at"]) == ("assigned", "vm-2", None)
        assert abs((moved["expires_at"] - ends).total_seconds()) <= 1
        assert json.loads((await spare.claim(1))["command"]) == {"argv": ["echo", "hello"]}
    else:
        assert (moved["status"], moved["failure"]) == ("failed", "vm-deleted")


async def test_a_job_that_did_not_begin_moves_whatever_its_pool_says(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await service.execute("SELECT ensure_pool('default', true, ARRAY['echo'], 600, 90, 600)")
    await machine(database)
    lease = (await ask(service, argv=["echo", "hello"]))["lease_id"]
    await machine(database, "vm-2")
    await owner.execute("UPDATE vms SET status = 'retired' WHERE hostname = 'vm-1'")
    assert (await lease_of(owner, lease))["hostname"] == "vm-2"


async def test_a_job_whose_machine_rebooted_begins_again_there_and_the_old_start_counts_for_nothing(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await with_a_job(database, service, restarts=True)
    await machine(database, "vm-2")
    ends = (await lease_of(owner, lease))["expires_at"]

    assert await vm.report(lease, 1, "unknown") == "assigned"

    again = await lease_of(owner, lease)
    assert (again["status"], again["hostname"], again["epoch"], again["trouble"]) == ("assigned", "vm-1", 2, "unknown")
    assert (again["started_at"], again["moves"], again["expires_at"]) == (None, 1, ends)
    with refused("LL001"):
        await vm.report(lease, 1, "exited", 0)
    assert json.loads((await vm.claim(2))["command"]) == {"argv": ["echo", "hello"]}
    assert await vm.report(lease, 2, "exited", 0) == "active"


async def test_a_job_that_takes_its_machine_down_does_so_no_more_than_six_times(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await with_a_job(database, service, restarts=True)
    for epoch in range(1, 6):
        assert await vm.report(lease, epoch, "unknown") == "assigned"
        await vm.claim(epoch + 1)
    assert await vm.report(lease, 6, "unknown") == "failed"
    assert (await row_of(owner))["status"] == "cleaning"


async def test_a_job_that_an_admin_typed_does_not_begin_again(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await service.execute("SELECT ensure_pool('default', true, ARRAY['echo'], 600, 90, 600)")
    await owner.execute("UPDATE pools SET restart_on_move = true")
    vm = await machine(database)
    await owner.execute("UPDATE vms SET status = 'in-use', email = 'ada@example.org', crd_command = 'echo hello'")
    lease = (await vm.claim(1))["lease_id"]
    await vm.report(lease, 1, "started", kind="job")
    assert await vm.report(lease, 1, "unknown") == "failed"


@pytest.mark.parametrize(
    ("outcome", "failure", "why"), [("failed", "code-used", "code-used"), ("unknown", None, "unknown")]
)
async def test_a_code_that_did_not_do_costs_nobody_the_machine(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, outcome: str, failure: str, why: str
) -> None:
    vm, lease = await claimed(database, service)
    assert await vm.report(lease, 1, outcome, failure=failure) == "assigned"
    kept = await lease_of(owner, lease)
    assert (kept["needs_line"], kept["trouble"], kept["hostname"], kept["failure"]) == (True, why, "vm-1", None)
    assert (await vm.hello(1, lease))["kind"] == "hold"

    await renew(service, lease)
    await vm.claim(2)
    assert await vm.report(lease, 2, "exited", 0) == "active"


async def test_a_code_that_grew_old_in_the_queue_is_asked_for_again_and_the_place_stays(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    lease = (await ask(service))["lease_id"]
    await owner.execute("DELETE FROM lease_secrets")
    waits = await lease_of(owner, lease)
    assert (waits["status"], waits["needs_line"], waits["trouble"]) == ("queued", True, "code-expired")
    assert await renew(service, lease) == "queued"
    vm = await machine(database)
    assert json.loads((await vm.claim(1))["secrets"])["pin"] == "654321654321"


async def test_a_line_may_be_renewed_while_one_waits_with_a_good_one(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    lease = (await ask(service))["lease_id"]
    assert await renew(service, lease) == "queued"
    assert not (await lease_of(owner, lease))["needs_line"]
    assert json.loads(await owner.fetchval("SELECT secrets FROM lease_secrets"))["pin"] == "654321654321"
    assert await owner.fetchval("SELECT count(*) FROM events WHERE detail ->> 'trouble' = 'code-expired'") == 0


async def test_a_machine_that_does_not_begin_is_left_for_another(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await machine(database)
    lease = (await ask(service))["lease_id"]
    await machine(database, "vm-2")
    await owner.execute("UPDATE leases SET deadline = clock() - interval '1 second'")
    await service.execute("SELECT sweep_deadlines()")
    moved = await lease_of(owner, lease)
    assert (moved["hostname"], moved["trouble"], moved["needs_line"]) == ("vm-2", "deadline", False)


async def test_an_admin_moves_somebody_in_psql(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await with_a_job(database, service, restarts=False)
    await machine(database, "vm-2")
    await owner.execute("UPDATE leases SET status = 'queued' WHERE id = $1", lease)
    assert (await lease_of(owner, lease))["hostname"] == "vm-2"
    assert (await row_of(owner))["status"] == "cleaning"


async def test_whoever_met_five_bad_machines_is_told_so(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await claimed(database, service)
    for number in range(2, 8):
        await machine(database, f"vm-{number}")
        await owner.execute("UPDATE vms SET status = 'failed' WHERE status = 'in-use'")
    over = await lease_of(owner, lease)
    assert (over["status"], over["failure"], over["moves"]) == ("failed", "vm-failed", 5)


async def test_what_was_lent_by_hand_does_not_move(database: Database, owner: asyncpg.Connection) -> None:
    await machine(database)
    await machine(database, "vm-2")
    await owner.execute("UPDATE vms SET status = 'in-use' WHERE hostname = 'vm-1'")
    with refused("LL003"):
        await owner.execute("UPDATE leases SET status = 'queued' WHERE live")
    await owner.execute("UPDATE vms SET status = 'failed' WHERE hostname = 'vm-1'")
    assert await owner.fetchval("SELECT failure FROM leases") == "vm-failed"


async def test_an_epoch_rises_by_hand_only_with_its_lease(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await claimed(database, service)
    await vm.report(lease, 1, "failed", failure="code-used")
    with refused("LL003"):
        await owner.execute("UPDATE vms SET epoch = epoch + 1")
    with refused("LL003"):
        await owner.execute("UPDATE leases SET epoch = epoch + 1, needs_line = false")


async def test_only_who_is_asked_for_a_line_gives_one(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await claimed(database, service)
    with refused("LL008"):
        await renew(service, lease)
    await owner.execute("SELECT end_lease($1)", lease)
    with refused("LL008"):
        await renew(service, lease)


async def test_line_after_line_keeps_no_machine_beyond_the_end_of_the_lease(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await claimed(database, service)
    await vm.report(lease, 1, "failed", failure="code-used")
    await owner.execute("UPDATE leases SET expires_at = clock() + interval '1 second'")
    for epoch in (2, 3):
        await database.let_pass(epoch)
        await renew(service, lease)
        await vm.claim(epoch)
        await vm.report(lease, epoch, "failed", failure="code-used")

    await service.execute("SELECT sweep_deadlines()")

    over = await lease_of(owner, lease)
    assert (over["status"], over["failure"]) == ("failed", "no-line")

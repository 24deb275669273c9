"""A machine that nobody uses: its holder is warned, then the lease ends and whoever is next has it."""

from uuid import UUID

import asyncpg
import pytest

from tests.sql.speaking import TOKEN, call, idle_hellos, known
from tests.sql.steps import ADA, BOB, Machine, ask, lease_of, lent, machine, refused, row_of
from tests.support.database import Database

HOUR, WARN = 3600, 600
WARNED_FOR = (
    "SELECT extract(epoch FROM l.idle_until - e.at) FROM lease_views l JOIN events e ON e.lease_id = l.id"
    " WHERE l.id = $1 AND e.kind = 'lease.idle'"
)


@pytest.fixture(autouse=True)
async def pool(owner: asyncpg.Connection) -> None:
    """An hour, warned ten minutes before."""
    await owner.execute("UPDATE pools SET idle_seconds = $1, idle_warn_seconds = $2", HOUR, WARN)


async def sweep(service: asyncpg.Connection) -> int:
    return int(await service.fetchval("SELECT sweep_idle()"))


async def long_ago(owner: asyncpg.Connection, lease: UUID) -> None:
    """It was lent hours ago."""
    await owner.execute("UPDATE leases SET active_at = active_at - interval '5 hours' WHERE id = $1", lease)


async def left_alone(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, idle: int | None
) -> tuple[Machine, UUID]:
    """A desktop of Ada's that nobody has used for so long, after one sweep."""
    vm, lease = await lent(database, service)
    await long_ago(owner, lease)
    await vm.hello(1, lease, idle)
    await sweep(service)
    return vm, lease


async def is_warned(owner: asyncpg.Connection, lease: UUID) -> bool:
    return (await lease_of(owner, lease))["idle_until"] is not None


async def kinds(owner: asyncpg.Connection, lease: UUID) -> list[str]:
    rows = await owner.fetch("SELECT kind FROM events WHERE lease_id = $1 AND kind LIKE 'lease.%' ORDER BY id", lease)
    return [row["kind"] for row in rows]


async def time_up(owner: asyncpg.Connection, lease: UUID) -> None:
    await owner.execute("UPDATE leases SET idle_until = clock() - interval '1 second' WHERE id = $1", lease)


async def test_an_idle_lease_is_warned_then_ended_and_the_machine_goes_to_whoever_is_next(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await left_alone(database, owner, service, HOUR - WARN + 1)
    waits = (await ask(service, BOB))["lease_id"]
    assert await owner.fetchval(WARNED_FOR, lease) == WARN
    assert await sweep(service) == 0

    await time_up(owner, lease)
    await vm.hello(1, lease, HOUR + 1)
    assert await sweep(service) == 1
    ended = await lease_of(owner, lease)
    assert (ended["status"], ended["left_idle"]) == ("ended", True)
    said = await owner.fetchval("SELECT detail FROM why_lease($1) WHERE what = 'it is not over'", lease)
    assert said.startswith("ended: nobody used it, since")
    assert await owner.fetchval("SELECT how_it_ended FROM lease_history WHERE id = $1", lease) == "nobody used it"
    assert (await kinds(owner, lease))[-2:] == ["lease.idle", "lease.ended"]
    told = "SELECT detail ->> 'left_idle' FROM events WHERE kind = 'lease.ended' AND lease_id = $1"
    assert await owner.fetchval(told, lease) == "true"
    await vm.clean()
    assert (await lease_of(owner, waits))["status"] == "assigned"


@pytest.mark.parametrize("idle", [None, 0, HOUR - WARN - 60, -(10**6)])
async def test_who_uses_it_or_nobody_knows_about_is_not_warned(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, idle: int | None
) -> None:
    _, lease = await left_alone(database, owner, service, idle)
    assert not await is_warned(owner, lease)


async def test_a_warning_lasts_as_long_as_it_is_to_whenever_it_is_given(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await left_alone(database, owner, service, 4 * HOUR)
    assert await owner.fetchval(WARNED_FOR, lease) == WARN


@pytest.mark.parametrize("idle", [None, 5])
async def test_use_takes_the_warning_back_and_so_does_a_client_that_cannot_say(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, idle: int | None
) -> None:
    vm, lease = await left_alone(database, owner, service, HOUR)
    assert await is_warned(owner, lease)
    await vm.hello(1, lease, idle)
    await sweep(service)
    assert not await is_warned(owner, lease)
    assert (await kinds(owner, lease))[-2:] == ["lease.idle", "lease.used"]


async def test_a_machine_that_says_now_this_now_that_does_not_fill_the_history(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await left_alone(database, owner, service, HOUR)
    for idle in (0, HOUR) * 3:
        await vm.hello(1, lease, idle)
        await sweep(service)
    assert (await kinds(owner, lease))[-2:] == ["lease.idle", "lease.used"]
    assert (await kinds(owner, lease)).count("lease.idle") == 1

    await database.let_pass(WARN)
    await vm.hello(1, lease, HOUR)
    await sweep(service)
    assert await is_warned(owner, lease)


async def test_a_machine_that_is_silent_is_not_idle(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await left_alone(database, owner, service, HOUR)
    await time_up(owner, lease)
    await database.age(vm.vm, 60)
    await sweep(service)
    assert (await lease_of(owner, lease))["status"] == "active"
    assert not await is_warned(owner, lease)


async def test_a_pool_that_is_told_to_let_them_takes_its_warnings_back(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await left_alone(database, owner, service, HOUR)
    await service.execute("SELECT ensure_settings('default', '{\"idle_seconds\": 0}')")
    assert await sweep(service) == 1
    assert not await is_warned(owner, lease)


async def test_its_holder_is_still_there(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await left_alone(database, owner, service, HOUR)
    await service.execute("SELECT still_here($1)", lease)
    await vm.hello(1, lease, HOUR)
    assert await sweep(service) == 0
    assert not await is_warned(owner, lease)
    assert (await kinds(owner, lease))[-1] == "lease.used"

    version = (await lease_of(owner, lease))["version"]
    await service.execute("SELECT still_here($1)", lease)
    assert (await lease_of(owner, lease))["version"] == version


async def test_who_waits_or_is_done_may_say_that_they_are_there_and_nothing_follows(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    waits = (await ask(service, ADA))["lease_id"]
    await service.execute("SELECT still_here($1)", waits)
    assert (await lease_of(owner, waits))["here_at"] is None


async def test_a_lease_that_moves_is_warned_of_nothing(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await left_alone(database, owner, service, HOUR)
    await machine(database, "vm-2")
    await vm.unhealthy(1, "check disk: full")
    moved = await lease_of(owner, lease)
    assert (moved["hostname"], moved["idle_until"]) == ("vm-2", None)


@pytest.mark.parametrize(
    ("desktops", "exit_code", "warned"), [(True, None, True), (False, None, False), (False, 0, True)]
)
async def test_a_job_may_sleep_where_only_jobs_run_and_nothing_is_left_of_one_that_has_ended(
    database: Database,
    owner: asyncpg.Connection,
    service: asyncpg.Connection,
    desktops: bool,
    exit_code: int | None,
    warned: bool,
) -> None:
    await service.execute("SELECT ensure_pool('default', $1, ARRAY['echo'], 36000, 90, 600)", desktops)
    vm = await machine(database)
    lease = (await ask(service, argv=["echo"]))["lease_id"]
    await vm.claim(1)
    await vm.report(lease, 1, "started" if exit_code is None else "exited", exit_code)
    await long_ago(owner, lease)
    await vm.hello(1, lease, 2 * HOUR)
    await sweep(service)
    assert await is_warned(owner, lease) == warned


async def test_a_machine_that_an_admin_holds_is_not_idle(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await owner.execute("UPDATE vms SET status = 'in-use'")
    lease = (await row_of(owner))["lease_id"]
    await long_ago(owner, lease)
    await vm.hello(1, lease, 2 * HOUR)
    assert await sweep(service) == 0


async def test_over_the_hub_each_machine_says_its_own(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await known(database)
    used = "SELECT extract(epoch FROM seen_at - used_at)::integer FROM vm_heartbeats WHERE vm_id = $1"
    assert await idle_hellos(service, (TOKEN, 0, None, 77)) == {1}
    assert await owner.fetchval(used, vm.vm.id) == 77
    await call(service, "hello", epoch=0, lease_id=None, idle_seconds=78)
    assert await owner.fetchval(used, vm.vm.id) == 78
    await call(service, "hello", epoch=0, lease_id=None)
    assert await owner.fetchval(used, vm.vm.id) is None


async def test_why_tells_when_it_was_used_last(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await left_alone(database, owner, service, HOUR - WARN + 60)
    asked = "SELECT holds, detail FROM why_lease($1) WHERE what = 'somebody uses it'"
    told = await owner.fetchrow(asked, lease)
    assert told is not None
    assert not told["holds"]
    assert told["detail"].startswith("nobody has for 52 min; it ends in 10 min")
    following = await owner.fetchval("SELECT detail FROM why_lease($1) WHERE what = 'next'", lease)
    assert "unless somebody uses it, in 10 min" in following
    await owner.execute("UPDATE pools SET idle_seconds = 0")
    assert await owner.fetchrow(asked, lease) is None


async def test_times_that_make_no_sense_are_refused_with_a_hint(owner: asyncpg.Connection) -> None:
    for odd in ("idle_seconds = -1", "idle_seconds = 600", "idle_warn_seconds = 0"):
        with refused("23514"):
            await owner.execute(f"UPDATE pools SET {odd}")

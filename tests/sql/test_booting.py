"""That machines which boot are counted on from their making, not only once they are heard of."""

import json

import asyncpg
import pytest

from client.scram import verifier
from tests.sql.steps import ADA, ask, sha256

SAID = "SELECT eta_seconds, eta_p90_seconds, because FROM lease_views WHERE id = $1"
STATUS = "SELECT booting, coming FROM pool_status() WHERE name = 'default'"
WHY = "SELECT detail FROM why_pool('default') WHERE what = 'a machine is free'"


async def made(owner: asyncpg.Connection, *hostnames: str, age: float = 0) -> None:
    """These instances of the fleet were made so many seconds ago, and invited."""
    await owner.execute("INSERT INTO fleet_vms (hostname) SELECT unnest($1::text[])", list(hostnames))
    await owner.execute("SELECT record_made($1)", json.dumps({name: f"i-{name}" for name in hostnames}))
    for name in hostnames:
        await owner.execute("SELECT invite_vm($1, 'default', $2)", name, sha256(name))
    await owner.execute("UPDATE fleet_vms SET invited_at = clock(), made_at = clock() - make_interval(secs => $1)", age)


async def booted_in(owner: asyncpg.Connection, *seconds: float) -> None:
    """Boots of the pool took so long."""
    await owner.execute(
        "INSERT INTO boots (vm_id, boot_id, pool, phases, seconds)"
        " SELECT 1000 + n, gen_random_uuid(), 'default', '[]', s FROM unnest($1::float8[]) WITH ORDINALITY AS t (s, n)",
        list(seconds),
    )


async def said(service: asyncpg.Connection) -> tuple[int | None, int | None, str | None]:
    """What is said now to whoever is first in line."""
    lease = (await ask(service, ADA))["lease_id"]
    await service.execute("SELECT sweep_forecasts()")
    row = await service.fetchrow(SAID, lease)
    assert row is not None
    return tuple(row)


async def status(owner: asyncpg.Connection) -> tuple[int, int]:
    """How many machines boot, and how many are on their way, as everybody may see it."""
    row = await owner.fetchrow(STATUS)
    assert row is not None
    return tuple(row)


@pytest.fixture
async def usual(owner: asyncpg.Connection) -> None:
    """Boots take five minutes, a little less or more."""
    await booted_in(owner, *[280 + n for n in range(41)])


@pytest.mark.usefixtures("usual")
async def test_instances_of_the_fleet_are_told_of_from_their_making(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await made(owner, "vm-1", "vm-2", age=120)
    likely, sure, because = await said(service)
    assert likely and sure
    assert 160 <= likely <= sure <= 210
    assert because == "2 machines are booting, the first ready in about 3 min"
    assert await status(owner) == (2, 2)
    assert await owner.fetchval(WHY) == "2 booting"


@pytest.mark.usefixtures("usual")
async def test_an_instance_that_enrolled_has_booted_since_it_was_started(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await made(owner, "vm-1", age=240)
    enrolled = "SELECT enrol_instance($1, $2, 'i-vm-1', clock() - interval '2 minutes')"
    await service.execute(enrolled, sha256("vm-1"), verifier("password of the machine"))
    likely, _, because = await said(service)
    assert likely
    assert 160 <= likely <= 210
    assert because == "1 machine is booting, ready in about 3 min"
    assert await status(owner) == (1, 1)
    assert await owner.fetchval(WHY) == "1 booting"


@pytest.mark.usefixtures("usual")
async def test_machines_that_terraform_makes_at_this_moment_are_counted_on_until_it_fails(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("INSERT INTO operations (kind, pool) VALUES ('fleet grow', 'default')")
    await owner.execute("SELECT grow_fleet(2, 'default', 'vm', NULL, NULL, NULL)")
    likely, _, because = await said(service)
    assert likely
    assert 280 <= likely <= 330
    assert because == "2 machines are booting, the first ready in about 5 min"

    await owner.execute("UPDATE operations SET status = 'failed', error = 'no quota', finished_at = clock()")
    assert await said(service) == (None, None, None)
    assert await status(owner) == (0, 0)


async def test_where_no_boot_is_known_no_time_is_told_of_it(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await made(owner, "vm-1", age=60)
    assert (await said(service))[2] == "1 machine is booting"


async def test_an_instance_that_boots_for_longer_than_any_did_is_not_counted_on(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await made(owner, "vm-1", age=11 * 60)
    assert await said(service) == (None, None, None)

    await booted_in(owner, 13 * 60.0)
    likely, sure, _ = await said(service)
    assert likely is not None and sure is not None
    assert likely <= sure <= 130


async def test_a_machine_that_an_admin_invites_may_be_started_tomorrow(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("SELECT invite_vm('desk-7', 'default', $1)", sha256("desk-7"))
    assert await said(service) == (None, None, None)
    assert await status(owner) == (0, 0)


async def test_an_instance_that_did_not_come_is_not_told_of(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await made(owner, "vm-1", age=60)
    assert await status(owner) == (1, 1)
    await service.execute("SELECT note_absence($1, 'never enrolled')", sha256("vm-1"))
    assert await status(owner) == (0, 0)
    assert await owner.fetchval("SELECT (size_of('default')).coming") == []

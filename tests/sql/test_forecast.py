"""How long whoever waits is told to wait, and how often that held."""

from datetime import timedelta

import asyncpg
import pytest

from tests.sql.steps import ADA, BOB, CYD, ask, lease_of, lent, machine
from tests.support.database import Database

WAITS = "SELECT eta_seconds, eta_p90_seconds FROM lease_views WHERE id = $1"


async def told(service: asyncpg.Connection, lease: object) -> tuple[int | None, int | None]:
    """What a forecast made now says: with even odds, and in nine of ten cases."""
    await service.execute("SELECT sweep_forecasts()")
    row = await service.fetchrow(WAITS, lease)
    assert row is not None
    return tuple(row)


async def lasted(owner: asyncpg.Connection, *minutes: float) -> None:
    """So long leases of the pool lasted, whose machines are gone."""
    await owner.execute("SET session_replication_role = replica")
    await owner.execute(
        "INSERT INTO leases (email, kind, status, vm_id, hostname, epoch, assigned_at, ended_at, started_at)"
        " SELECT 'x' || n, 'job', 'ended', 1000 + n, 'gone', 1, clock() - make_interval(mins => 2000) - each,"
        " clock() - make_interval(mins => 2000), clock()"
        " FROM (SELECT make_interval(secs => 60 * m) AS each, n"
        "       FROM unnest($1::float8[]) WITH ORDINALITY AS t (m, n)) AS those",
        list(minutes),
    )
    await owner.execute(
        "INSERT INTO events (actor, kind, lease_id)"
        " SELECT 'sweep', 'lease.ended', id FROM leases WHERE status = 'ended'"
    )
    await owner.execute("SET session_replication_role = origin")


@pytest.fixture
async def superuser(database: Database) -> asyncpg.Connection:
    return await database.connect("postgres")


async def test_without_a_history_a_machine_comes_free_when_its_lease_has_to_end(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE pools SET lease_seconds = 600")
    await lent(database, service)
    first, second = (await ask(service, BOB))["lease_id"], (await ask(service, CYD))["lease_id"]
    (likely, sure), (later, _) = await told(service, first), await told(service, second)
    assert likely and sure and later
    assert 500 <= likely <= sure <= 800
    assert 900 <= later <= 1600


async def test_a_machine_comes_free_as_leases_ended_before(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, superuser: asyncpg.Connection
) -> None:
    await lasted(superuser, *[10 + n / 10 for n in range(100)])
    await lent(database, service)
    likely, sure = await told(service, (await ask(service, BOB))["lease_id"])
    assert likely and sure
    assert 12 * 60 <= likely <= 18 * 60
    assert likely < sure <= 25 * 60


async def test_a_lease_that_outlasted_all_others_ends_at_the_latest_when_its_time_is_up(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, superuser: asyncpg.Connection
) -> None:
    await lasted(superuser, *[1.0] * 50)
    await owner.execute("UPDATE pools SET lease_seconds = 7200")
    _, lease = await lent(database, service)
    await database.age(lease, 3600)
    likely, sure = await told(service, (await ask(service, BOB))["lease_id"])
    assert likely and sure
    assert 3000 <= likely <= sure <= 4600


async def test_booting_machines_come_as_fast_as_others_did(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute(
        "INSERT INTO boots (vm_id, boot_id, pool, phases, seconds)"
        " SELECT 1000 + n, gen_random_uuid(), 'default', '[]', 100 + n FROM generate_series(1, 40) n"
    )
    await machine(database, status="booting")
    likely, sure = await told(service, (await ask(service, ADA))["lease_id"])
    assert likely and sure
    assert 90 <= likely <= 140
    assert likely <= sure <= 180


async def test_nothing_is_foretold_where_no_machine_is_known_to_come(service: asyncpg.Connection) -> None:
    assert await told(service, (await ask(service))["lease_id"]) == (None, None)


async def test_whoever_comes_first_after_a_quiet_time_is_not_told_what_was_foretold_before_it(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await lent(database, service)
    waits = (await ask(service, BOB))["lease_id"]
    await told(service, waits)
    await owner.execute("UPDATE forecasts SET at = at - interval '1 hour'")
    status = "SELECT eta_seconds, eta_p90_seconds FROM pool_status()"

    first = await service.fetchrow("SELECT eta_seconds, because FROM lease_views WHERE id = $1", waits)
    asked = await service.fetchrow(status)
    why = await owner.fetchval("SELECT detail FROM why_lease($1) WHERE what = 'next'", waits)
    await service.execute("SELECT end_lease($1)", waits)
    await service.execute("SELECT sweep_forecasts()")

    assert first is not None and asked is not None
    assert (tuple(first), tuple(asked)) == ((None, None), (None, None))
    assert "at a time that nobody can tell" in why
    assert await owner.fetchval("SELECT count(*) FROM forecasts") == 0


async def test_it_is_written_down_what_was_foretold_first_and_counted_whether_it_held(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await lent(database, service)
    waits = (await ask(service, BOB))["lease_id"]
    assert await service.fetchval("SELECT sweep_forecasts()") == 1
    assert await service.fetchval("SELECT sweep_forecasts()") == 0
    assert await owner.fetch("SELECT * FROM forecast_calibration") == []
    await service.execute("SELECT end_lease($1)", lease)
    await vm.clean()
    assert (await lease_of(owner, waits))["status"] == "assigned"
    calibrated = await owner.fetchrow("SELECT * FROM forecast_calibration")
    assert calibrated is not None
    assert tuple(calibrated) == ("default", 1, 1, 1)


async def test_a_large_pool_is_foretold_from_a_part_of_it(
    database: Database, service: asyncpg.Connection, superuser: asyncpg.Connection
) -> None:
    await superuser.execute("SET session_replication_role = replica")
    await superuser.execute(
        "INSERT INTO vms (hostname, status) SELECT 'vm-' || n, 'cleaning' FROM generate_series(1, 2000) n"
    )
    forecast = await superuser.fetchrow("SELECT * FROM forecast('default')")
    assert forecast is not None
    assert round(forecast["likely"][-1]) >= 2000


async def test_whoever_waits_is_told_in_words_what_comes(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE pools SET lease_seconds = 7200")
    await lent(database, service)
    waits = (await ask(service, BOB))["lease_id"]
    await told(service, waits)
    nothing_yet = await owner.fetchval("SELECT because FROM lease_views WHERE id = $1", waits)

    await database.vm("vm-2", "booting")
    await database.vm("vm-3", "booting")
    await owner.execute(
        "INSERT INTO boots (vm_id, boot_id, pool, phases, seconds)"
        " VALUES (1000, gen_random_uuid(), 'default', '[]', 180)"
    )
    await owner.execute("UPDATE leases SET expires_at = clock() + interval '15 minutes' WHERE vm_id IS NOT NULL")
    await told(service, waits)

    assert nothing_yet == "the next lease ends in 2 h at the latest"
    assert await owner.fetchval("SELECT because FROM lease_views WHERE id = $1", waits) == (
        "2 machines are booting, the first ready in about 3 min; 1 lease ends within 20 min"
    )


async def test_how_often_it_held_is_told_once_enough_have_waited(
    database: Database, owner: asyncpg.Connection, superuser: asyncpg.Connection
) -> None:
    await lasted(superuser, *[10] * 20)
    why = "SELECT holds, detail FROM why_pool('default') WHERE what = 'the times told of waits hold'"
    told = "INSERT INTO foretold SELECT id, assigned_at, assigned_at + $2::interval, assigned_at + $3::interval"
    minute = timedelta(minutes=1)
    await owner.execute(f"{told} FROM leases WHERE email <> $1", "x20", -minute, minute)
    assert await owner.fetchrow(why) is None
    await owner.execute(f"{told} FROM leases WHERE email = $1", "x20", -minute, -minute)
    found = await owner.fetchrow(why)
    assert found is not None
    assert found["holds"] is True
    assert "95 %" in found["detail"]

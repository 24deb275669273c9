"""What an admin may do with machines by name: each function is one UPDATE that psql could do as well."""

import json

import asyncpg
import pytest
from pydantic import TypeAdapter, ValidationError

from allocator.conf_values import PoolName
from tests.sql.steps import ask, lease_of, lent, machine, refused, row_of
from tests.support.database import Database


async def test_a_released_machine_ends_its_lease_and_is_cleaned(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await lent(database, service)

    answers = [await owner.fetchval("SELECT release_vm('vm-1')") for _ in range(2)]

    assert answers == ["cleaning", "cleaning"]
    assert (await lease_of(owner, lease))["status"] == "ended"
    await vm.clean()
    assert await owner.fetchval("SELECT release_vm('vm-1')") == "available"


async def test_releasing_a_machine_that_had_not_started_its_command_cancels_the_lease(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await database.vm("vm-1")
    lease = (await ask(service))["lease_id"]

    await owner.execute("SELECT release_vm('vm-1')")

    assert (await lease_of(owner, lease))["status"] == "cancelled"


@pytest.mark.parametrize(
    ("reason", "told"),
    [("fan is broken", "held by lablink: fan is broken"), (None, "held by lablink"), (" ", "held by lablink")],
)
async def test_a_failed_machine_says_why_and_who_had_it_waits_for_another(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, reason: str | None, told: str
) -> None:
    _, lease = await lent(database, service)

    assert await owner.fetchval("SELECT fail_vm('vm-1', $1)", reason) == "failed"

    row, failed = await row_of(owner), await lease_of(owner, lease)
    assert (row["reason"], row["epoch"]) == (told, 2)
    assert (failed["status"], failed["trouble"]) == ("queued", "vm-failed")


@pytest.mark.parametrize(
    "statement", ["SELECT fail_vm('vm-1', 'lost')", "UPDATE vms SET status = 'failed', reason = 'Lost?'"]
)
async def test_a_machine_that_a_person_calls_lost_stays_until_it_is_returned(
    database: Database, owner: asyncpg.Connection, statement: str
) -> None:
    vm = await machine(database)
    await owner.execute(statement)

    orders = await vm.hello()

    assert orders["status"] == "failed"
    assert (await row_of(owner))["reason"].lower().startswith("held by lablink: lost")


async def test_a_failed_machine_that_is_returned_is_cleaned_and_then_available(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await owner.execute("SELECT fail_vm('vm-1', 'x')")

    answers = [await owner.fetchval("SELECT return_vm('vm-1')") for _ in range(2)]
    await vm.clean()

    row = await row_of(owner)
    assert answers == ["cleaning", "cleaning"]
    assert (row["status"], row["reason"]) == ("available", None)


@pytest.mark.parametrize("status", ["booting", "available"])
async def test_returning_a_machine_that_is_not_failed_changes_nothing(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, status: str
) -> None:
    await database.vm("vm-1", status)

    assert await owner.fetchval("SELECT return_vm('vm-1')") == status


async def test_returning_a_machine_that_is_lent_leaves_its_person_alone(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await lent(database, service)

    assert await owner.fetchval("SELECT return_vm('vm-1')") == "in-use"

    assert (await lease_of(owner, lease))["status"] == "active"


async def test_a_retired_machine_fails_its_lease_and_comes_back_by_enrolling_only(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await lent(database, service)

    assert await owner.fetchval("SELECT retire_vm('vm-1')") == "retired"

    assert (await lease_of(owner, lease))["trouble"] == "vm-deleted"
    for statement in ("SELECT return_vm('vm-1')", "SELECT fail_vm('vm-1', 'x')"):
        with refused("LL003"):
            await owner.execute(statement)


@pytest.mark.parametrize("function", ["release_vm($1)", "fail_vm($1, 'x')", "return_vm($1)", "retire_vm($1)"])
async def test_a_machine_that_is_not_there_is_refused(
    owner: asyncpg.Connection, service: asyncpg.Connection, function: str
) -> None:
    with refused("LL002"):
        await owner.execute(f"SELECT {function}", "vm-404")


async def test_a_pool_becomes_what_the_configuration_says(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    for seconds in (100, 200):
        await service.execute("SELECT ensure_pool('gpu', false, ARRAY['echo'], $1, 30, 40)", seconds)

    row = await owner.fetchrow("SELECT * FROM pools WHERE name = 'gpu'")
    assert row is not None
    assert (row["lease_seconds"], row["command_seconds"], row["queue_seconds"]) == (200, 30, 40)
    assert (row["accepts_desktop"], row["programs"]) == (False, ["echo"])


async def test_settings_change_a_pool_where_they_differ_and_leave_the_rest(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    settings = {"programs": ["echo"], "max_machines": 7, "budget": "12.50", "time_zone": "Europe/Berlin"}
    await service.execute("SELECT ensure_settings('gpu', $1)", json.dumps(settings))
    was = await owner.fetchrow("SELECT *, xmin::text FROM pools WHERE name = 'gpu'")
    await service.execute("SELECT ensure_settings('gpu', $1)", json.dumps(settings))
    again = await owner.fetchrow("SELECT *, xmin::text FROM pools WHERE name = 'gpu'")
    await service.execute("SELECT ensure_settings('gpu', '{\"max_machines\": null}')")
    now = await owner.fetchrow("SELECT *, xmin::text FROM pools WHERE name = 'gpu'")

    assert was is not None and again == was and now is not None
    assert (was["programs"], was["max_machines"], str(was["budget"])) == (["echo"], 7, "12.50")
    assert {name for name, value in now.items() if value != was[name]} == {"max_machines", "xmin"}


@pytest.mark.parametrize(
    ("settings", "words", "hint"),
    [
        ('{"leese_seconds": 60}', "a pool has no setting leese_seconds", "lease_seconds"),
        ('{"paused": true}', "a pool has no setting paused", "lease_seconds"),
        ('{"lease_seconds": "soon"}', 'type integer: "soon"', "pools"),
        ('{"lease_seconds": null}', "lease_seconds", "pools"),
        ('{"lease_seconds": 99999999999}', "out of range", "pools"),
        ('{"lease_seconds": 0}', "lease_seconds", "lease_seconds"),
    ],
)
async def test_settings_that_are_none_are_refused_in_words(
    owner: asyncpg.Connection, service: asyncpg.Connection, settings: str, words: str, hint: str
) -> None:
    with pytest.raises(asyncpg.PostgresError, match=words) as refusal:
        await service.execute("SELECT ensure_settings('gpu', $1)", settings)

    assert hint in (refusal.value.hint or "")
    assert not await owner.fetchval("SELECT count(*) FROM pools WHERE name = 'gpu'")


@pytest.mark.parametrize(
    "name", ["default", "gpu-2", "7", "a" * 63, "a" * 64, "with_underscore", "-gpu", "GPU", "gpu 2", "ä", ""]
)
async def test_a_pool_may_be_called_in_the_settings_what_the_database_takes(
    service: asyncpg.Connection, name: str
) -> None:
    try:
        await service.execute("SELECT ensure_pool($1, true, '{}', 60, 60, 60)", name)
        taken = True
    except asyncpg.CheckViolationError:
        taken = False
    try:
        TypeAdapter(PoolName).validate_python(name)
        allowed = True
    except ValidationError:
        allowed = False
    assert allowed == taken

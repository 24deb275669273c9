"""Notifications: hints that something changed, once a statement, at commit, and nothing personal in them."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from allocator.standing import LEASE_CHANNEL
from tests.sql.listening import Ears, ears
from tests.sql.steps import ADA, CODE, LINE, PIN, ask, machine, row_of
from tests.support.database import Database

LIMIT = 7_900


@pytest_asyncio.fixture
async def heard(database: Database, owner: asyncpg.Connection) -> AsyncIterator[Ears]:
    """What arrives on both channels."""
    async with ears(await database.connect("lablink_app")) as ours:
        yield ours


async def test_a_change_of_status_is_hinted_at_with_name_status_and_epoch(
    database: Database, owner: asyncpg.Connection, heard: Ears
) -> None:
    vm = await database.vm("vm-1")
    await heard.catch_up()
    heard.forget()

    await owner.execute("UPDATE vms SET status = 'failed'")
    await heard.catch_up()

    assert heard.hints() == [{"id": vm.id, "hostname": "vm-1", "status": "failed", "epoch": 1}]


async def test_new_and_deleted_machines_are_hinted_at(owner: asyncpg.Connection, heard: Ears) -> None:
    await owner.execute("INSERT INTO vms (hostname) VALUES ('a'), ('b')")
    await owner.execute("DELETE FROM vms")
    await heard.catch_up()

    assert [(hint["hostname"], hint["status"]) for hint in heard.hints()] == [
        ("a", "booting"),
        ("b", "booting"),
        ("a", "deleted"),
        ("b", "deleted"),
    ]


async def test_truncate_hints_at_every_machine(owner: asyncpg.Connection, heard: Ears) -> None:
    await owner.execute("INSERT INTO vms (hostname) VALUES ('a'), ('b')")
    heard.forget()

    await owner.execute("TRUNCATE TABLE vms")
    await heard.catch_up()

    assert {hint["hostname"] for hint in heard.hints()} == {"a", "b"}


async def test_a_change_that_is_rolled_back_is_not_heard(owner: asyncpg.Connection, heard: Ears) -> None:
    async with owner.transaction():
        await owner.execute("INSERT INTO vms (hostname) VALUES ('a')")
        await heard.catch_up()
        before_commit = list(heard.all_payloads)
    transaction = owner.transaction()
    await transaction.start()
    await owner.execute("UPDATE vms SET status = 'failed'")
    await transaction.rollback()
    await heard.catch_up()

    assert before_commit == []
    assert [hint["status"] for hint in heard.hints()] == ["booting"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE vms SET updated_at = NOW()",
        "UPDATE vms SET status = 'available', email = NULL, crd_command = NULL, updated_at = NOW()",
        "UPDATE vms SET status = status",
        "UPDATE vms SET created_at = NOW()",
        "UPDATE vms SET status = 'failed' WHERE false",
        "UPDATE vm_heartbeats SET seen_at = NOW()",
        "UPDATE leases SET token_sha256 = NULL WHERE false",
    ],
)
async def test_what_no_listener_cares_about_is_not_hinted_at(
    database: Database, owner: asyncpg.Connection, heard: Ears, statement: str
) -> None:
    await database.vm("vm-1")
    await heard.catch_up()
    heard.forget()

    await owner.execute(statement)
    await heard.catch_up()

    assert heard.all_payloads == []


async def test_heartbeats_wake_nobody(database: Database, heard: Ears) -> None:
    vm = await machine(database)
    await heard.catch_up()
    heard.forget()

    for _ in range(3):
        await vm.hello()
    await heard.catch_up()

    assert heard.all_payloads == []


async def test_a_statement_sends_one_notification_whatever_the_number_of_its_rows(
    owner: asyncpg.Connection, heard: Ears
) -> None:
    await owner.execute("INSERT INTO vms (hostname) SELECT 'h' || g FROM generate_series(1, 50) g")
    await heard.catch_up()

    assert len(heard.all_payloads) == 1
    assert len(heard.hints()) == 50


async def test_a_request_is_hinted_at_to_the_machine_and_to_the_allocators(
    database: Database, service: asyncpg.Connection, heard: Ears
) -> None:
    vm = await database.vm("vm-1")
    await heard.catch_up()
    heard.forget()

    answer = await ask(service)
    await heard.catch_up()

    lease = str(answer["lease_id"])
    assert heard.hints() == [{"id": vm.id, "hostname": "vm-1", "status": "in-use", "epoch": 1}]
    assert heard.hints(LEASE_CHANNEL) == [{"id": lease, "status": "assigned"}]


async def test_a_job_that_is_fetched_is_hinted_at_to_nobody(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, heard: Ears
) -> None:
    vm = await machine(database)
    await owner.execute("UPDATE pools SET programs = $1", ["echo"])
    await ask(service, argv=["echo"])
    await heard.catch_up()
    heard.forget()

    await vm.claim(1)
    await heard.catch_up()

    assert heard.all_payloads == []


async def test_a_command_of_any_length_changes_hands_and_is_not_in_the_hint(
    database: Database, owner: asyncpg.Connection, heard: Ears
) -> None:
    vm = await machine(database)
    line = "python train.py " + "x" * 100_000

    await owner.execute("UPDATE vms SET status = 'in-use', email = $1, crd_command = $2", ADA, line)
    await heard.catch_up()

    assert (await vm.claim(1))["line"] == line
    assert max(len(payload) for payload in heard.all_payloads) < 200


@pytest.mark.parametrize("name", ["h", "h" * 248])
async def test_ten_thousand_rows_are_all_hinted_at_in_payloads_that_fit(
    owner: asyncpg.Connection, heard: Ears, name: str
) -> None:
    await owner.execute("INSERT INTO vms (hostname) SELECT $1 || g FROM generate_series(1, 10000) g", name)
    await heard.catch_up()
    heard.forget()

    await owner.execute("UPDATE vms SET status = 'failed'")
    await heard.catch_up()

    assert max(len(payload.encode()) for payload in heard.all_payloads) < LIMIT
    assert {hint["hostname"] for hint in heard.hints()} == {f"{name}{n}" for n in range(1, 10_001)}
    assert len(heard.hints()) == 10_000


async def test_nothing_personal_is_in_any_notification_or_event(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, heard: Ears
) -> None:
    """A whole life: requested, run, ended; queued and cancelled; lent by hand; failed; deleted."""
    vm = await machine(database)
    lease = (await ask(service, ADA, key="key"))["lease_id"]
    await vm.run()
    queued = (await ask(service, "grace@example.org"))["lease_id"]
    await service.execute("SELECT end_lease($1)", queued)
    await service.execute("SELECT end_lease($1)", lease)
    await vm.clean()
    await owner.execute("UPDATE vms SET status = 'in-use', email = 'lin@example.org', crd_command = $1", LINE)
    await vm.claim((await row_of(owner))["epoch"])
    await vm.unhealthy((await row_of(owner))["epoch"], f"cannot wipe after --pin={PIN}")
    await owner.execute("DELETE FROM vms")
    await heard.catch_up()

    events = str(await owner.fetch("SELECT e::text FROM events e"))
    told = "".join(heard.all_payloads)
    assert len(heard.all_payloads) > 10
    for secret in ("@example.org", CODE, PIN, "start-host", "redirect", "remotedesktop"):
        assert secret not in told
        assert secret not in events


async def test_a_forged_or_garbled_notification_changes_nothing_in_the_database(
    database: Database, owner: asyncpg.Connection
) -> None:
    vm = await machine(database)
    before = await row_of(owner)

    await vm.connection.execute("SELECT pg_notify('vm_updates', 'x'), pg_notify('lease_updates', $1)", "y" * LIMIT)

    assert await row_of(owner) == before

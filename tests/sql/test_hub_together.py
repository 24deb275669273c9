"""What many machines say at once over the hub is one statement, and for each what it would have been alone."""

from datetime import datetime
from uuid import UUID

import asyncpg
import pytest

from tests.sql.speaking import OTHER, TOKEN, call, claims, hellos, known
from tests.sql.steps import ADA, BOB, CODE, PIN, ask, lease_of, sha256
from tests.support.database import Database


async def seen_at(owner: asyncpg.Connection, hostname: str = "vm-1") -> datetime:
    beat = "SELECT seen_at FROM vm_heartbeats JOIN vms ON id = vm_id WHERE hostname = $1"
    seen: datetime = await owner.fetchval(beat, hostname)
    return seen


async def test_hellos_that_come_together_are_answered_together(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    first, second = await known(database), await known(database, "vm-2", OTHER)
    for vm in (first, second):
        await database.age(vm.vm, 100)
    before = [await seen_at(owner, name) for name in ("vm-1", "vm-2")]

    answers = await hellos(service, (OTHER, 0, None), (sha256("nobody"), 0, None), (TOKEN, 0, None))

    assert {place: answer.get("hostname") for place, answer in answers.items()} == {1: "vm-2", 2: None, 3: "vm-1"}
    single = (await call(service, "hello", epoch=0, lease_id=None))["answer"]
    assert answers[3] == single
    after = [await seen_at(owner, name) for name in ("vm-1", "vm-2")]
    assert all(now > then for now, then in zip(after, before, strict=True))


@pytest.mark.parametrize("what", ["ahead", "impossible", "retired"])
async def test_a_hello_that_more_follows_from_is_left_for_itself(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, what: str
) -> None:
    await known(database)
    epoch = {"ahead": 5, "impossible": 10**17}.get(what, 0)
    changes = {
        "retired": "UPDATE vms SET status = 'retired'",
    }
    await owner.execute(changes.get(what, "SELECT"))

    assert await hellos(service, (TOKEN, epoch, None)) == {}

    answer = await call(service, "hello", epoch=epoch, lease_id=None)
    expected = {"impossible": "LL001", "retired": "LL002"}
    assert answer.get("refused") == expected.get(what)


async def booting(database: Database, owner: asyncpg.Connection) -> None:
    """Machines 1 and 2, which have not said hello yet; the first was never cleaned at its epoch."""
    for hostname, token in (("vm-1", TOKEN), ("vm-2", OTHER)):
        await known(database, hostname, token)
    await owner.execute(
        "ALTER TABLE vms DISABLE TRIGGER USER; UPDATE vms SET status = 'booting';"
        "UPDATE vms SET epoch = 3 WHERE hostname = 'vm-1'; ALTER TABLE vms ENABLE TRIGGER USER;"
        "ALTER TABLE vm_heartbeats DISABLE TRIGGER USER;"
        "DELETE FROM vm_heartbeats WHERE vm_id = (SELECT id FROM vms WHERE hostname = 'vm-2');"
        "ALTER TABLE vm_heartbeats ENABLE TRIGGER USER"
    )


async def test_machines_whose_first_contact_it_is_are_welcomed_together(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await booting(database, owner)
    lease = (await ask(service))["lease_id"]

    answers = await hellos(service, (TOKEN, 0, None), (OTHER, 0, None))

    assert answers[1]["status"] == "cleaning"
    assert (answers[2]["status"], answers[2]["lease_id"], answers[2]["lease_status"]) == (
        "in-use",
        str(lease),
        "assigned",
    )
    assert answers[2] == (await call(service, "hello", OTHER, epoch=0, lease_id=None))["answer"]
    told = "SELECT DISTINCT hostname, actor FROM events WHERE kind IN ('vm.available', 'vm.cleaning', 'lease.assigned')"
    assert all(row["actor"] == row["hostname"] for row in await owner.fetch(told))
    assert await owner.fetchval("SELECT count(*) FROM vm_heartbeats WHERE seen_at > clock() - interval '1 minute'") == 2
    assert await owner.fetch("SELECT * FROM broken_invariants()") == []


async def test_machines_that_were_lost_come_back_together(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await known(database)
    await known(database, "vm-2", OTHER)
    await owner.execute("UPDATE vms SET status = 'failed', reason = 'lost'")
    answers = await hellos(service, (TOKEN, 0, None), (OTHER, 0, None))
    assert [(answer["status"], answer["epoch"]) for answer in answers.values()] == [("cleaning", 1)] * 2
    actors = await owner.fetch("SELECT DISTINCT actor FROM events WHERE kind = 'vm.cleaning'")
    assert {row["actor"] for row in actors} == {"vm-1", "vm-2"}


async def test_a_machine_that_somebody_keeps_locked_keeps_no_other_from_being_welcomed(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await booting(database, owner)
    async with owner.transaction():
        await owner.execute("SELECT FROM vms WHERE hostname = 'vm-1' FOR UPDATE")
        assert list(await hellos(service, (TOKEN, 0, None), (OTHER, 0, None))) == [2]
    assert (await call(service, "hello", epoch=0, lease_id=None))["answer"]["status"] == "cleaning"


async def test_claims_that_come_together_are_answered_together(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await known(database)
    await known(database, "vm-2", OTHER)
    first, second = [(await ask(service, email))["lease_id"] for email in (ADA, BOB)]
    by_token = {TOKEN: "vm-1", OTHER: "vm-2"}

    answers = await claims(service, (OTHER, 1), (sha256("nobody"), 1), (TOKEN, 1))

    assert {answers[1]["lease_id"], answers[3]["lease_id"]} == {str(first), str(second)}
    assert answers[1]["secrets"] == {"code": CODE, "pin": PIN}
    for token, answer in ((OTHER, answers[1]), (TOKEN, answers[3])):
        assert answer == (await call(service, "claim", token, epoch=1))["answer"]
        lease = await lease_of(owner, UUID(answer["lease_id"]))
        assert (lease["status"], lease["hostname"]) == ("claimed", by_token[token])
    told = await owner.fetch("SELECT actor, hostname FROM events WHERE kind = 'lease.claimed'")
    assert {tuple(row) for row in told} == {("vm-1", "vm-1"), ("vm-2", "vm-2")}


@pytest.mark.parametrize("what", ["claimed", "stale", "nothing", "held", "locked", "revoked"])
async def test_a_claim_that_is_not_the_first_or_in_somebodys_way_is_left_for_itself(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, what: str
) -> None:
    await known(database)
    by_hand = "UPDATE vms SET status = 'in-use' WHERE hostname = 'vm-1'"
    await (
        owner.execute(by_hand) if what == "held" else service.execute("SELECT") if what == "nothing" else ask(service)
    )
    if what == "claimed":
        await call(service, "claim", epoch=1)
    elif what == "revoked":
        await owner.execute("SELECT revoke_vm('vm-1')")
    async with owner.transaction():
        if what == "locked":
            await owner.execute("SELECT FROM vms FOR UPDATE")
        assert await claims(service, (TOKEN, 0 if what in ("stale", "nothing") else 1)) == {}


async def test_a_heartbeat_that_somebody_keeps_locked_holds_nobody_up(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    first = await known(database)
    await known(database, "vm-2", OTHER)
    transaction = first.connection.transaction()
    await transaction.start()
    await first.hello()
    answers = await hellos(service, (TOKEN, 0, None), (OTHER, 0, None))
    await transaction.rollback()
    assert {place: answer["hostname"] for place, answer in answers.items()} == {1: "vm-1", 2: "vm-2"}

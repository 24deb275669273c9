"""Reports and cleanings of many machines at once over the hub: to each and of each what it would have been alone."""

from typing import Any
from uuid import UUID

import asyncpg
import pytest

from tests.sql.speaking import OTHER, THIRD, TOKEN, TOKENS, call, cleanings, lent, report, reports
from tests.sql.steps import ADA, BOB, CYD, ask, sha256
from tests.support.database import Database

LEASE = """SELECT l.status, l.kind, l.failure, l.exit_code, l.output, l.version, l.deadline IS NULL AS no_deadline,
    l.started_at IS NULL AS not_started, l.active_at IS NULL AS not_active, l.ended_at IS NULL AS not_ended,
    v.status AS machine, v.epoch, v.reason, v.lease_id IS NULL AS free, v.cleaned_epoch,
    (SELECT count(*) FROM lease_secrets s WHERE s.lease_id = l.id) AS secrets
    FROM leases l JOIN vms v ON v.id = l.vm_id WHERE l.hostname = $1 ORDER BY l.place"""
EVENTS = """SELECT kind, detail, actor = hostname AS itself FROM events e
    WHERE hostname = $1 AND id > $2 ORDER BY kind, detail::text"""


async def became(owner: asyncpg.Connection, hostname: str, since: int) -> tuple[Any, Any]:
    """The machine and its leases, and what the history says of them after this event."""
    return await owner.fetch(LEASE, hostname), await owner.fetch(EVENTS, hostname, since)


async def newest(owner: asyncpg.Connection) -> int:
    return int(await owner.fetchval("SELECT max(id) FROM events"))


@pytest.mark.parametrize("kind", ["desktop", "job"])
@pytest.mark.parametrize(
    "told",
    [
        [report("started")],
        [report("started"), report("started")],
        [report("started"), report("exited", 0, "hello\r\n\x1b[1m")],
        [report("started"), report("exited", 0, "hello"), report("exited", 3, "again")],
        [report("exited", 3, "no")],
        [report("exited", 3, "no", "code-used")],
        [report("failed")],
        [report("failed", failure="not-installed")],
        [report("started"), report("unknown")],
    ],
)
async def test_reports_that_come_together_do_what_each_does_alone(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, kind: str, told: list[dict[str, Any]]
) -> None:
    leases = await lent(database, service, kind, ADA, BOB, CYD)
    since = await newest(owner)

    for each in told:
        alone = await call(service, "report", TOKEN, lease_id=str(leases["vm-1"]), **each)
        answers = await reports(
            service,
            (THIRD, leases["vm-3"], each),
            (sha256("nobody"), leases["vm-1"], each),
            (OTHER, leases["vm-2"], each),
        )
        assert answers == {1: alone, 3: alone}

    expected = await became(owner, "vm-1", since)
    assert [await became(owner, hostname, since) for hostname in ("vm-2", "vm-3")] == [expected] * 2


@pytest.mark.parametrize("what", ["stale", "other", "over", "locked", "unclaimed", "revoked", "typed"])
async def test_a_report_that_is_odd_or_in_somebodys_way_is_left_for_itself(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, what: str
) -> None:
    leases = await lent(database, service, "job", ADA, BOB)
    told = report("started")
    changes = {
        "over": f"UPDATE leases SET status = 'cancelled' WHERE id = '{leases['vm-1']}'",
        "unclaimed": "ALTER TABLE leases DISABLE TRIGGER USER; UPDATE leases SET status = 'assigned';"
        "ALTER TABLE leases ENABLE TRIGGER USER",
        "revoked": "SELECT revoke_vm('vm-1')",
        "typed": "ALTER TABLE leases DISABLE TRIGGER USER; UPDATE leases SET kind = 'typed';"
        "ALTER TABLE leases ENABLE TRIGGER USER",
    }
    await owner.execute(changes.get(what, "SELECT"))
    async with owner.transaction():
        if what == "locked":
            await owner.execute("SELECT FROM vms FOR UPDATE")
        lease = leases["vm-2" if what == "other" else "vm-1"]
        assert await reports(service, (TOKEN, lease, told | {"epoch": 7 if what == "stale" else 1})) == {}


async def test_of_two_reports_of_one_machine_the_second_is_left_for_itself(
    database: Database, service: asyncpg.Connection
) -> None:
    lease = (await lent(database, service, "job", ADA))["vm-1"]
    both = (TOKEN, lease, report("started")), (TOKEN, lease, report("exited", 0, "hello"))
    assert await reports(service, *both) == {1: {"answer": "active"}}


async def test_what_the_disk_must_have_is_waited_for_and_the_rest_is_not(
    database: Database, service: asyncpg.Connection
) -> None:
    leases = await lent(database, service, "job", ADA, BOB)
    await service.execute("SET synchronous_commit = on")
    modes = []
    for first, second in ((report("started"), report("started")), (report("started"), report("exited", 0))):
        async with service.transaction():
            await reports(service, (TOKEN, leases["vm-1"], first), (OTHER, leases["vm-2"], second))
            modes.append(await service.fetchval("SHOW synchronous_commit"))
    assert modes == ["off", "on"]


async def over(owner: asyncpg.Connection, *leases: UUID) -> None:
    await owner.execute("UPDATE leases SET status = 'cancelled' WHERE id = ANY ($1)", leases)


@pytest.mark.parametrize("draining", [False, True])
async def test_machines_that_were_cleaned_together_are_what_each_would_be_alone(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, draining: bool
) -> None:
    leases = await lent(database, service, "desktop", ADA, BOB, CYD)
    await over(owner, *leases.values())
    await owner.execute("UPDATE vms SET draining = $1", draining)
    since = await newest(owner)

    alone = await call(service, "cleaned", TOKEN, epoch=2)
    assert await cleanings(service, (THIRD, 2), (sha256("nobody"), 2), (OTHER, 2), (OTHER, 2)) == {1: alone, 3: alone}

    assert alone == {"answer": "available"}
    expected = await became(owner, "vm-1", since)
    assert [await became(owner, hostname, since) for hostname in ("vm-2", "vm-3")] == [expected] * 2


async def test_whoever_waits_gets_the_machines_that_were_cleaned(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    leases = await lent(database, service, "job", ADA, BOB, CYD)
    waiting = [(await ask(service, email, argv=["echo"]))["lease_id"] for email in ("eve@x.org", "fay@x.org")]
    await over(owner, *leases.values())
    await service.execute("SET synchronous_commit = on")
    async with service.transaction():
        answers = await cleanings(service, *((token, 2) for token in TOKENS.values()))
        assert await service.fetchval("SHOW synchronous_commit") == "on"  # somebody was given a machine
    assert sorted(answer["answer"] for answer in answers.values()) == ["available", "in-use", "in-use"]
    served = await owner.fetch("SELECT status FROM leases WHERE id = ANY ($1)", waiting)
    assert [row["status"] for row in served] == ["assigned"] * 2


@pytest.mark.parametrize("what", ["stale", "lent", "clean", "locked", "revoked"])
async def test_a_cleaning_that_is_odd_or_in_somebodys_way_is_left_for_itself(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, what: str
) -> None:
    leases = await lent(database, service, "desktop", ADA)
    if what != "lent":
        await over(owner, *leases.values())
    if what == "clean":
        await call(service, "cleaned", epoch=2)
    elif what == "revoked":
        await owner.execute("SELECT revoke_vm('vm-1')")
    async with owner.transaction():
        if what == "locked":
            await owner.execute("SELECT FROM vms FOR UPDATE")
        assert await cleanings(service, (TOKEN, 1 if what in ("stale", "lent") else 2)) == {}


@pytest.mark.parametrize("unknown", [report("unknown"), report("failed", failure="unknown")])
async def test_a_job_that_begins_again_is_left_for_itself_and_the_history_says_which_machine_had_it_so(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, unknown: dict[str, Any]
) -> None:
    leases = await lent(database, service, "job", ADA, BOB)
    await owner.execute("UPDATE pools SET restart_on_move = true")
    since = await newest(owner)

    told = await reports(service, (TOKEN, leases["vm-1"], unknown), (OTHER, leases["vm-2"], report("exited", 0)))
    assert told == {2: {"answer": "active"}}
    alone = await call(service, "report", TOKEN, lease_id=str(leases["vm-1"]), **unknown)
    assert alone == {"answer": "assigned"}

    events = "SELECT DISTINCT actor, hostname FROM events WHERE lease_id = $1 AND id > $2"
    assert [tuple(row) for row in await owner.fetch(events, leases["vm-1"], since)] == [("vm-1", "vm-1")]

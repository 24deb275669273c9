"""The history is only added to, and says who did what; whoever changes it on purpose is written down."""

import asyncpg
import pytest

from tests.sql.history import happen, seal, wrong
from tests.sql.steps import ask, refused
from tests.support.database import Database


async def test_the_history_is_only_added_to(database: Database, owner: asyncpg.Connection) -> None:
    await happen(owner)
    month = await owner.fetchval("SELECT tableoid::regclass FROM events LIMIT 1")
    for table in ("events", month, "events_default", "event_seals", "event_archives"):
        for statement in (f"DELETE FROM {table}", f"TRUNCATE {table}"):
            with refused("LL003"):
                await owner.execute(statement)
    for table in ("events", month):
        with refused("LL003"):
            await owner.execute(f"UPDATE {table} SET kind = 'x'")


async def test_whoever_changes_it_on_purpose_is_written_down_and_seen(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    (event,) = await happen(owner)
    await seal(service)

    await owner.execute("SET lablink.rewrite_history = 'asked for by Ada'")
    await owner.execute("UPDATE events SET kind = 'x' WHERE id = $1", event)
    with refused("LL003"):
        await owner.execute("TRUNCATE events")

    row = await owner.fetchrow("SELECT kind, db_role, detail FROM events ORDER BY id DESC LIMIT 1")
    assert row is not None
    assert (row["kind"], row["db_role"]) == ("history.rewritten", "lablink")
    assert "asked for by Ada" in row["detail"]
    assert await wrong(owner) == [f"event {event} was changed after it was sealed (seal 1)"]


async def test_the_service_cannot_change_it_on_any_purpose(service: asyncpg.Connection) -> None:
    await service.execute("SET lablink.rewrite_history = 'because'")
    for statement in (
        "UPDATE events SET kind = 'x'",
        "DELETE FROM events",
        "TRUNCATE events",
        "DELETE FROM event_seals",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await service.execute(statement)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await service.execute("INSERT INTO events (actor, kind) VALUES ('web', 'x')")


async def test_an_event_says_who_did_it_in_which_role_and_from_where(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    sweep = await database.connect("lablink_app", **{"lablink.actor": "sweep"})
    typed = await database.connect("lablink", **{"lablink.actor": "cli:ada"})
    forger = await (await database.vm("vm-1")).connect()
    await forger.execute("SET lablink.actor = 'web'")
    last = await owner.fetchval("SELECT max(id) FROM events")

    await owner.execute("INSERT INTO leases (email, kind) VALUES ('ada@example.org', 'job')")
    await sweep.execute("SELECT sweep_queue()")
    await forger.execute("SELECT client_api.claim(1)")
    await typed.execute("SELECT release_vm('vm-1')")
    await ask(service)

    rows = await owner.fetch("SELECT DISTINCT actor, db_role, host(client_addr) FROM events WHERE id > $1", last)
    role = await owner.fetchval("SELECT role FROM vms")
    assert {tuple(row) for row in rows} == {
        (actor, db_role, "127.0.0.1")
        for actor, db_role in [
            ("lablink", "lablink"),
            ("sweep", "lablink_app"),
            ("vm-1", role),
            ("cli:ada", "lablink"),
            ("web", "lablink_app"),
        ]
    }

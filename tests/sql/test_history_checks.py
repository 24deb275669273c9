"""What was changed, removed, added or dated back behind the seals is named, in words."""

from datetime import UTC, datetime

import asyncpg
import pytest

from allocator.upkeep.history import broken_history
from tests.sql.history import happen, head, seal, tamper, wrong
from tests.support.database import Database
from tests.support.upkeep import ignore


@pytest.mark.parametrize(
    "column",
    [
        "actor = 'nobody'",
        "db_role = 'nobody'",
        "client_addr = '10.1.1.1'",
        "kind = 'x'",
        "vm_id = 1",
        "hostname = 'x'",
        "lease_id = gen_random_uuid()",
        "detail = '{}'",
        "at = at + interval '1 microsecond'",
    ],
)
async def test_every_column_is_sealed(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, column: str
) -> None:
    ids = await happen(owner, 3)
    await seal(service)
    await tamper(database, f"UPDATE events SET {column} WHERE id = {ids[1]}")
    assert await wrong(owner) == [f"event {ids[1]} was changed after it was sealed (seal 1)"]


async def test_an_event_that_was_removed_is_named(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    ids = await happen(owner, 3)
    await seal(service)
    await tamper(database, f"DELETE FROM events WHERE id = {ids[1]}")
    assert await wrong(owner) == [
        f"event {ids[1]} (seal 1) is missing: it was removed, or its time was changed",
    ]


async def test_events_that_were_added_behind_the_chain_are_named(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    ids = await happen(owner, 3)
    gap = await owner.fetchval("SELECT nextval('events_id_seq')")
    await happen(owner)
    await seal(service)
    same = f"SELECT id, at + interval '1 microsecond', actor, kind FROM events WHERE id = {ids[1]}"
    new = f"SELECT {gap}, at, actor, kind FROM events WHERE id = {ids[1]}"
    await tamper(database, *(f"INSERT INTO events (id, at, actor, kind) {query}" for query in (new, same)))
    await seal(service)

    words = await wrong(owner)
    assert words[0] == f"event {ids[1]} is there 2 times: it was added to after it was sealed (seal 1)"
    assert words[1].startswith(f"event {gap} of ") and words[1].endswith("had been sealed before")
    assert len(words) == 2


async def test_an_event_that_is_dated_back_is_named(owner: asyncpg.Connection, service: asyncpg.Connection) -> None:
    await happen(owner)
    (forged,) = await happen(owner, 1, "clock() - interval '3 days'")
    await seal(service)
    (words,) = await wrong(owner)
    assert words.startswith(f"event {forged} is dated ") and "dated back" in words


async def test_events_that_nobody_seals_are_told_of_after_a_while(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await happen(owner, 2)
    early = await wrong(owner)
    await database.let_pass(660)
    assert early == []
    (words,) = await wrong(owner)
    assert words.startswith("2 events since ") and "not sealed yet" in words
    await seal(service)
    assert await wrong(owner) == []


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE event_seals SET sealed_at = sealed_at - interval '1 hour' WHERE seal = 2", "seal 2 of "),
        ("UPDATE event_seals SET events = 1, prints = substr(prints, 1, 8) WHERE seal = 2", "seal 2 of "),
        ("DELETE FROM event_seals WHERE seal = 2", "seal 2 was removed"),
        ("DELETE FROM event_seals WHERE seal = 1", "seal 1 was removed"),
        (
            "UPDATE event_seals s SET sealed_at = now(), sha256 = seal_sha256((SELECT ROW(seal, month, ids, events, "
            "rows_sha256, prints, previous, sha256, now())::event_seals FROM event_seals t WHERE t.seal = s.seal)) "
            "WHERE seal = 2",
            "seal 3 does not follow from seal 2: one of them was forged",
        ),
    ],
)
async def test_a_seal_that_was_changed_removed_or_forged_is_named(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, statement: str, words: str
) -> None:
    for _ in range(3):
        await happen(owner, 2)
        await seal(service)
    await tamper(database, statement)
    assert (await wrong(owner))[0].startswith(words)


async def test_a_month_that_was_dropped_is_told_of_in_one_line(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await database.stop_clock()
    await service.execute("SELECT sweep_months()")  # of this month, which may have begun since the template was made
    await happen(owner, 50, "'2026-08-10 00:00:00+00'")
    assert await service.fetchval("SELECT sweep_months()") == 1
    await seal(service)
    await owner.execute("DROP TABLE events_2026_08")
    assert await wrong(owner) == ["all 50 events of seal 1 (2026-08) are missing, and no archive has them"]


async def test_a_chain_that_was_made_anew_does_not_fit_a_head_that_was_kept(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    (event,) = await happen(owner)
    await seal(service)
    kept = await head(owner)
    await tamper(
        database,
        f"UPDATE events SET kind = 'x' WHERE id = {event}",
        "DELETE FROM event_seals",
        "UPDATE event_sealing SET settled = 0, seen = 0",
    )
    nothing_left = await wrong(owner, kept)
    await seal(service)

    assert any("seal 1, which was kept, is not there" in words for words in nothing_left)
    assert await wrong(owner) == []
    assert await wrong(owner, kept) == [
        "seal 1 is not the one that was kept: the history up to it was rewritten",
    ]
    assert await wrong(owner, await head(owner)) == []


async def test_verify_since_a_time_leaves_out_what_was_sealed_before(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    (event,) = await happen(owner)
    await seal(service)
    await tamper(database, f"UPDATE events SET kind = 'x' WHERE id = {event}")
    await tamper(database, f"INSERT INTO events (id, actor, kind) VALUES ({event}, 'x', 'x')")
    later = datetime(2100, 1, 1, tzinfo=UTC)
    assert await broken_history(owner, tell=ignore) != []
    assert await broken_history(owner, since=later, tell=ignore) == []


async def test_a_broken_history_is_told_of_in_a_hundred_sentences_at_most(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await happen(owner, 300)
    await seal(service)
    await tamper(database, "UPDATE events SET kind = 'x'")
    assert len(await wrong(owner)) == 101


GUARD = "TRIGGER events_guard_trigger BEFORE UPDATE OR DELETE OR TRUNCATE ON events_default FOR EACH STATEMENT"


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE events_default DISABLE TRIGGER events_guard_trigger",
        "DROP TRIGGER events_guard_trigger ON events_default",
        f"CREATE OR REPLACE {GUARD} WHEN (false) EXECUTE FUNCTION guard_events()",
        f"CREATE OR REPLACE {GUARD} EXECUTE FUNCTION delete_before_truncate()",
        f"CREATE OR REPLACE {GUARD.replace('UPDATE OR ', '')} EXECUTE FUNCTION guard_events()",
    ],
)
async def test_a_guard_that_is_off_is_told_of_and_put_back(
    owner: asyncpg.Connection, service: asyncpg.Connection, statement: str
) -> None:
    await owner.execute(statement)
    (words,) = await wrong(owner)
    assert "anybody who owns it may change events_default" in words

    await service.fetchval("SELECT sweep_months()")

    assert await wrong(owner) == []


async def test_a_trigger_that_changes_what_will_be_written_is_told_of(owner: asyncpg.Connection) -> None:
    await owner.execute(
        "CREATE FUNCTION hush() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.actor := ''web''; RETURN NEW; END'"
    )
    await owner.execute("CREATE TRIGGER hush BEFORE INSERT ON events_default FOR EACH ROW EXECUTE FUNCTION hush()")

    assert await wrong(owner) == [
        "events_default has the trigger hush, which is not LabLink's and may change what is written"
    ]

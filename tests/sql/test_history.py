"""The history cannot be changed unseen: refused by hand, sealed behind, and told in words by verify."""

import asyncio
from datetime import UTC, datetime

import asyncpg
import pytest

from allocator.local.postgres_binaries import find_binaries
from allocator.upkeep.history import Head, broken_history
from tests.sql.history import happen, seal, tamper, wrong
from tests.sql.steps import ask, refused
from tests.support.database import PASSWORDS, Database
from tests.support.upkeep import ignore

LINE = (
    '[7, 1763733600.250000, "web", "lablink_app", "10.0.0.9/32", "lease.queued", 3, "vm-3", '
    '"00000000-0000-0000-0000-000000000001", {"n": 1.50, "text": "ünïcödé \\"x\\"", "later": null}]'
)


async def head(owner: asyncpg.Connection) -> Head:
    row = await owner.fetchrow("SELECT seal, sha256 FROM history_head()")
    assert row is not None
    return Head(row["seal"], row["sha256"])


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


async def test_what_happened_is_sealed_once(owner: asyncpg.Connection, service: asyncpg.Connection) -> None:
    await happen(owner, 5)
    first = await seal(service)
    again = await seal(service)
    await happen(owner, 2)

    assert (first, again, await seal(service)) == (5, 0, 2)
    assert await wrong(owner) == []
    assert [row["events"] for row in await owner.fetch("SELECT events FROM event_seals ORDER BY seal")] == [5, 2]


async def test_the_first_event_is_sealed_however_long_it_was_waited_for(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    assert await seal(service) == 0
    await happen(owner)
    assert await seal(service) == 1
    assert await wrong(owner) == []


async def test_an_event_committed_late_is_sealed_late(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    slow = await database.connect()
    transaction = slow.transaction()
    await transaction.start()
    (late,) = await happen(slow)
    await happen(owner, 3)
    before = await seal(service)
    again = await seal(service)
    await transaction.commit()

    assert (before, again, await seal(service)) == (3, 0, 1)
    assert await owner.fetchval("SELECT ids @> $1::bigint FROM event_seals ORDER BY seal DESC LIMIT 1", late)
    assert await wrong(owner) == []


async def test_a_transaction_left_open_keeps_neither_writers_nor_seals_waiting(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    idle = await database.connect()
    async with idle.transaction():
        await happen(idle)
        await idle.fetch("SELECT * FROM events")
        await owner.execute("SET lock_timeout = '1s'")
        await happen(owner)
        assert await seal(service) == 1
        assert await service.fetchval("SELECT sweep_months()") == 0


async def test_rounds_read_new_events_only(owner: asyncpg.Connection, service: asyncpg.Connection) -> None:
    ids = await happen(owner, 5)
    await seal(service)
    assert await owner.fetchval("SELECT settled FROM event_sealing") == ids[-1]


async def test_a_history_longer_than_a_round_is_sealed_in_several(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await happen(owner, 10_001)
    rounds = [await service.fetchval("SELECT sweep_seal()") for _ in range(3)]
    assert rounds == [10_000, 1, 0]
    assert await wrong(owner) == []


async def test_a_seal_covers_one_month(owner: asyncpg.Connection, service: asyncpg.Connection) -> None:
    await happen(owner, 2, "'2026-07-31 23:59:59.9+00'")
    await happen(owner, 3, "'2026-08-01 00:00:00+00'")
    await seal(service)
    seals = await owner.fetch("SELECT to_char(month, 'YYYY-MM') AS month, events FROM event_seals ORDER BY seal")
    assert [tuple(row) for row in seals] == [("2026-07", 2), ("2026-08", 3)]
    assert await wrong(owner) == []


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
    same = f"SELECT id, at + interval '1 second', actor, kind FROM events WHERE id = {ids[1]}"
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
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
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
    later = datetime(2100, 1, 1, tzinfo=UTC)
    assert await broken_history(owner, since=later, tell=ignore) == []


async def test_a_broken_history_is_told_of_in_a_hundred_sentences_at_most(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await happen(owner, 300)
    await seal(service)
    await tamper(database, "UPDATE events SET kind = 'x'")
    assert len(await wrong(owner)) == 101


async def test_a_guard_that_is_off_is_told_of(owner: asyncpg.Connection) -> None:
    await owner.execute("ALTER TABLE events_default DISABLE TRIGGER events_guard_trigger")
    (words,) = await wrong(owner)
    assert "events_default" in words


@pytest.mark.parametrize("style", ["German", "SQL, DMY"])
async def test_no_setting_of_a_session_and_no_version_changes_the_line_that_is_sealed(
    owner: asyncpg.Connection, style: str
) -> None:
    await owner.execute(f"SET DateStyle = '{style}'; SET TimeZone = 'Pacific/Auckland'; SET extra_float_digits = 0")
    await owner.execute("SET bytea_output = 'escape'; SET IntervalStyle = 'sql_standard'")
    line = await owner.fetchval(
        """
        SELECT event_line(ROW(7, '2025-11-21 14:00:00.25+00', 'web', 'lablink_app', '10.0.0.9', 'lease.queued', 3,
                              'vm-3', '00000000-0000-0000-0000-000000000001',
                              '{"text": "ünïcödé \\"x\\"", "n": 1.50, "later": null}')::events)
        """
    )
    assert line == LINE


async def test_a_dump_and_restore_by_any_means_keeps_the_chain(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await happen(owner, 2, "'2026-07-31 23:59:59.9+00'")
    await happen(owner, 3)
    await service.fetchval("SELECT sweep_months()")
    await seal(service)
    kept = await head(owner)
    copy = await _restored(database)

    assert await wrong(copy, kept) == []
    await happen(copy, 2)
    assert await seal(copy) == 2
    assert await wrong(copy, kept) == []


async def _restored(database: Database) -> asyncpg.Connection:
    """The owner's connection to a copy of the database that plain pg_dump and psql made."""
    copy, directory = f"{database.name}_copy", find_binaries(database.server.version).directory
    superuser = await database.connect("postgres")
    await superuser.execute(f"CREATE DATABASE {copy} OWNER lablink")
    database.opened.push_async_callback(superuser.execute, f"DROP DATABASE {copy} WITH (FORCE)")
    target = database.server.dsn(copy, "lablink", PASSWORDS["lablink"])
    script = f"'{directory}/pg_dump' '{database.dsn('lablink')}' | '{directory}/psql' -qv ON_ERROR_STOP=1 '{target}'"
    assert await (await asyncio.create_subprocess_shell(script, stdout=asyncio.subprocess.DEVNULL)).wait() == 0
    return await database.keep(target)

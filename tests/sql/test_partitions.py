"""The history is kept by the month, and old months go into files."""

import gzip
import json
from datetime import date
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from allocator import migrate
from allocator.upkeep import UpkeepFailed
from allocator.upkeep.archive import Archived, archive, broken_archive
from tests.sql.history import happen, seal, tamper, wrong
from tests.support.database import Database
from tests.support.upkeep import ignore

JULY, AUGUST = "'2026-07-10 00:00:00+00'", "'2026-08-31 23:59:59.5+00'"
SEPTEMBER = date(2026, 9, 1)


@pytest_asyncio.fixture(autouse=True)
async def in_the_first_month(database: Database, owner: asyncpg.Connection) -> None:
    """The month in which the database was made is not over, whenever that was."""
    await database.stand_at(f"{min(await months(owner))}-15 12:00+00")


@pytest_asyncio.fixture
async def two_old_months(owner: asyncpg.Connection, service: asyncpg.Connection) -> None:
    """July with the events 1 to 3 and August with 4 and 5, sealed."""
    await happen(owner, 3, JULY)
    await happen(owner, 2, AUGUST)
    await service.fetchval("SELECT sweep_months()")
    await seal(service)


async def months(owner: asyncpg.Connection) -> list[str]:
    """The months that have a partition."""
    rows = await owner.fetch("SELECT to_char(month, 'YYYY-MM') AS month FROM event_months() ORDER BY 1")
    return [row["month"] for row in rows]


async def ahead(owner: asyncpg.Connection) -> list[str]:
    """This month and the next two."""
    query = "SELECT to_char(event_month(clock()) + make_interval(months => n), 'YYYY-MM') FROM generate_series(0, 2) n"
    return [row[0] for row in await owner.fetch(query)]


async def archived(owner: asyncpg.Connection, directory: Path) -> list[Archived]:
    return await archive(owner, SEPTEMBER, directory, ignore)


async def test_this_month_and_the_next_two_are_there_from_the_start(owner: asyncpg.Connection) -> None:
    assert await months(owner) == await ahead(owner)


async def test_months_are_made_as_time_goes_by(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    early = await service.fetchval("SELECT sweep_months()")
    await database.stand_at(f"{(await ahead(owner))[1]}-15 12:00+00")
    assert (early, await service.fetchval("SELECT sweep_months()")) == (0, 1)
    assert set(await ahead(owner)) <= set(await months(owner))


async def test_events_that_came_before_their_month_are_moved_into_it(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    """Nobody swept for months, and psql went on writing."""
    await database.stand_at("2031-01-15 12:00+00")
    ids = await happen(owner, 3)
    await seal(service)

    assert await owner.fetchval("SELECT count(*) FROM events_default") == 3
    assert await service.fetchval("SELECT sweep_months()") == 3
    assert await owner.fetchval("SELECT count(*) FROM events_default") == 0
    assert [row["id"] for row in await owner.fetch("SELECT id FROM events ORDER BY id")] == ids
    assert await wrong(owner) == []


async def test_a_new_month_is_guarded(owner: asyncpg.Connection, service: asyncpg.Connection) -> None:
    await happen(owner, 1, JULY)
    await service.fetchval("SELECT sweep_months()")
    for statement in ("DELETE FROM events_2026_07", "TRUNCATE events_2026_07"):
        with pytest.raises(asyncpg.PostgresError, match="never changed"):
            await owner.execute(statement)


async def test_a_month_is_made_later_while_somebody_reads(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await happen(owner, 1, JULY)
    reader = await database.connect()
    async with reader.transaction():
        await reader.fetch("SELECT * FROM events")
        meanwhile = await service.fetchval("SELECT sweep_months()")
        await happen(owner)
    assert (meanwhile, await service.fetchval("SELECT sweep_months()")) == (0, 1)


async def test_the_newest_events_are_found_without_reading_all_of_them(owner: asyncpg.Connection) -> None:
    await happen(owner, 5000)
    await owner.execute("ANALYZE events")
    for query in (
        "SELECT max(id) FROM events",
        "SELECT * FROM events ORDER BY id DESC LIMIT 50",
        "SELECT * FROM events WHERE id > 4990 ORDER BY id LIMIT 1000",
        "SELECT * FROM events WHERE lease_id = gen_random_uuid()",
        "SELECT * FROM events WHERE hostname = 'vm-1' ORDER BY id DESC LIMIT 10",
    ):
        (plan,) = json.loads(await owner.fetchval(f"EXPLAIN (ANALYZE, FORMAT json) {query}"))
        assert rows_read(plan["Plan"]) < 100, query


def rows_read(plan: dict[str, object]) -> float:
    """How many rows the leaves of a plan gave and threw away."""
    below = plan.get("Plans")
    if isinstance(below, list):
        return sum(rows_read(each) for each in below)
    counted = (plan["Actual Rows"], plan.get("Rows Removed by Filter", 0))
    return sum(float(str(number)) for number in counted) * float(str(plan["Actual Loops"]))


async def test_the_migration_moves_what_happened_and_numbers_go_on(
    database: Database, owner: asyncpg.Connection
) -> None:
    await migrate.downgrade(database.dsn("lablink"), "2")
    await owner.execute(
        "INSERT INTO events (at, actor, kind) SELECT '2026-07-31 23:00+00', 'x', 'y' FROM generate_series(1, 9)"
    )
    before = await owner.fetch("SELECT * FROM events ORDER BY id")
    await migrate.upgrade(database.dsn("lablink"))

    assert await owner.fetch("SELECT * FROM events ORDER BY id") == before
    assert "2026-07" in await months(owner)
    (later,) = await happen(owner)
    assert later > before[-1]["id"]


async def test_an_admins_own_view_of_the_history_outlives_the_migration(
    database: Database, owner: asyncpg.Connection
) -> None:
    await migrate.downgrade(database.dsn("lablink"), "2")
    await owner.execute("CREATE VIEW mine AS SELECT kind, count(*) FROM events GROUP BY kind")
    await migrate.upgrade(database.dsn("lablink"))
    await happen(owner)
    assert await owner.fetchval("SELECT count FROM mine WHERE kind = 'test.happened'") == 1


@pytest.mark.usefixtures("two_old_months")
async def test_old_months_go_into_files_and_the_chain_holds(
    owner: asyncpg.Connection, service: asyncpg.Connection, tmp_path: Path
) -> None:
    moved = await archived(owner, tmp_path / "new")
    await seal(service)

    assert [(each.month, each.events) for each in moved] == [("2026-07", 3), ("2026-08", 2)]
    assert await months(owner) == await ahead(owner)
    assert await wrong(owner) == []
    for each in moved:
        assert await broken_archive(owner, Path(each.file)) == []
        assert Path(each.file).stat().st_mode & 0o777 == 0o600
    kinds = await owner.fetch("SELECT kind, actor FROM events ORDER BY id")
    assert [row["kind"] for row in kinds] == ["history.archived"] * 2
    assert await archived(owner, tmp_path) == []


@pytest.mark.usefixtures("two_old_months")
async def test_a_file_is_read_without_lablink(owner: asyncpg.Connection, tmp_path: Path) -> None:
    (july, _) = await archived(owner, tmp_path)
    head, *lines = map(json.loads, gzip.open(july.file, "rt", encoding="utf-8"))
    assert head["history"] == "2026-07"
    assert dict(zip(head["columns"], lines[0], strict=True))["kind"] == "test.happened"


@pytest.mark.usefixtures("two_old_months")
async def test_a_month_that_was_tampered_with_is_not_archived(
    database: Database, owner: asyncpg.Connection, tmp_path: Path
) -> None:
    await tamper(database, "UPDATE events SET kind = 'x' WHERE id = 4")
    with pytest.raises(UpkeepFailed, match="2026-08 stays: event 4 was changed"):
        await archived(owner, tmp_path)
    assert "2026-08" in await months(owner)
    assert [file.name for file in tmp_path.iterdir()] == ["events-2026-07.jsonl.gz"]


async def test_a_month_that_is_not_sealed_is_not_archived(
    owner: asyncpg.Connection, service: asyncpg.Connection, tmp_path: Path
) -> None:
    await happen(owner, 1, JULY)
    await service.fetchval("SELECT sweep_months()")
    with pytest.raises(UpkeepFailed, match="2026-07 stays: event 1 is in no seal"):
        await archived(owner, tmp_path)
    assert list(tmp_path.iterdir()) == []


async def test_this_month_is_not_archived(owner: asyncpg.Connection, tmp_path: Path) -> None:
    with pytest.raises(UpkeepFailed, match="Only what is over"):
        await archive(owner, date(2100, 1, 1), tmp_path, ignore)


@pytest.mark.usefixtures("two_old_months")
async def test_a_directory_that_cannot_be_written_to_is_said_to_be_so(
    owner: asyncpg.Connection, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UpkeepFailed, match="cannot be written to"):
        await archived(owner, tmp_path / "file")
    assert "2026-07" in await months(owner)


@pytest.mark.usefixtures("two_old_months")
async def test_an_archive_waits_for_an_open_transaction_and_keeps_nobody_waiting_for_long(
    database: Database, owner: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allocator.upkeep.archive.SECONDS_BETWEEN_TRIES", 0.0)
    monkeypatch.setattr("allocator.upkeep.archive.TRIES", 2)
    idle = await database.connect()
    async with idle.transaction():
        await happen(idle)
        with pytest.raises(UpkeepFailed, match="2026-07 stays for now"):
            await archived(owner, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert len(await archived(owner, tmp_path)) == 2


@pytest.mark.usefixtures("two_old_months")
async def test_late_events_of_an_archived_month_are_archived_in_a_second_file(
    owner: asyncpg.Connection, service: asyncpg.Connection, tmp_path: Path
) -> None:
    await archived(owner, tmp_path)
    await happen(owner, 1, JULY)
    await service.fetchval("SELECT sweep_months()")
    await seal(service)
    (second,) = await archived(owner, tmp_path)

    assert Path(second.file).name == "events-2026-07-2.jsonl.gz"
    for file in tmp_path.iterdir():
        assert await broken_archive(owner, file) == []


@pytest.mark.usefixtures("two_old_months")
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"test.happened", b"test.hXppened", "event 1 was changed after it was sealed (seal 1)"),
        (b"[1, ", b"[9, ", "event 9 is in no seal"),
        (b"\n[2, ", b"\n[3, ", "the events of seal 1 are not those that were sealed"),
    ],
)
async def test_a_file_that_was_changed_is_told_of(
    owner: asyncpg.Connection, tmp_path: Path, old: bytes, new: bytes, words: str
) -> None:
    (july, _) = await archived(owner, tmp_path)
    file = Path(july.file)
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()).replace(old, new, 1)))
    told = await broken_archive(owner, file)
    assert told[0] == "events-2026-07.jsonl.gz is not the file that was archived"
    assert words in told


@pytest.mark.usefixtures("two_old_months")
async def test_a_file_that_was_cut_or_belongs_to_nobody_is_told_of(owner: asyncpg.Connection, tmp_path: Path) -> None:
    (july, _) = await archived(owner, tmp_path)
    file = Path(july.file)
    lines = gzip.decompress(file.read_bytes()).splitlines(keepends=True)
    file.write_bytes(gzip.compress(b"".join(lines[:-1])))
    missing = await broken_archive(owner, file)
    file.write_bytes(file.read_bytes()[:-9])
    cut = await broken_archive(owner, file)
    foreign = tmp_path / "other.gz"
    foreign.touch()

    assert missing[1] == "1 of 3 events of seal 1 are missing"
    assert "cannot be read" in cut[1]
    with pytest.raises(UpkeepFailed, match=r"other\.gz"):
        await broken_archive(owner, foreign)


@pytest.mark.usefixtures("two_old_months")
async def test_an_archive_that_nobody_made_is_told_of(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("DROP TABLE events_2026_07")
    await tamper(
        database,
        "INSERT INTO event_archives (month, ids, events, file, sha256, archived_by) "
        "VALUES ('2026-07-01', '{[1,4)}', 3, 'lost', sha256(''), 'x')",
    )
    assert await wrong(owner) == ["2026-07 is said to be archived in lost, but no event tells of it"]

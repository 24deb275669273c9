"""A rehearsal runs the pending migrations on a backup, and says what they did to its rows."""

from pathlib import Path

import pytest

from allocator import migrate
from allocator.upkeep.backup import back_up
from allocator.upkeep.rehearse import Rehearsal, rehearse
from allocator.upkeep.storage import Directory
from tests.support.database import Database
from tests.support.sql import copied_sql
from tests.support.upkeep import ignore, some_life

EARLIER = "1"


@pytest.fixture
def storage(tmp_path: Path) -> Directory:
    """An empty place for backups."""
    return Directory(tmp_path / "backups")


@pytest.fixture
def sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of allocator/sql that a test may spoil."""
    return copied_sql(tmp_path / "sql", monkeypatch)


async def of_an_earlier_version(database: Database, storage: Directory) -> Rehearsal:
    """A rehearsal of a backup that was made before the last migrations."""
    await some_life(database)
    await migrate.downgrade(database.dsn("lablink"), EARLIER)
    await back_up(database.dsn("lablink"), storage, ignore)
    return await rehearse(database.dsn("lablink"), storage, "latest", ignore)


async def test_a_rehearsal_goes_up_down_and_up_and_leaves_nothing(database: Database, storage: Directory) -> None:
    shown = await of_an_earlier_version(database, storage)

    later = [step.version for step in (await migrate.history(database.dsn("lablink")))][1:]
    latest = later[-1]
    assert shown.problems == []
    assert shown.pending == later
    assert [(step.step, step.version) for step in shown.steps] == [
        ("restore", EARLIER),
        ("up", latest),
        ("down", EARLIER),
        ("up again", latest),
    ]
    owner = await database.connect()
    assert [step.applied for step in await migrate.history(database.dsn("lablink"))][1:] != [True]
    assert not await owner.fetchval(
        "SELECT EXISTS (SELECT FROM pg_database WHERE starts_with(datname, $1))", f"{database.name}_scratch"
    )


async def test_a_backup_of_the_newest_version_has_its_functions_renewed(database: Database, storage: Directory) -> None:
    await back_up(database.dsn("lablink"), storage, ignore)
    shown = await rehearse(database.dsn("lablink"), storage, "latest", ignore)

    assert shown.pending == []
    assert [step.step for step in shown.steps] == ["restore", "up"]
    assert shown.problems == []


async def test_a_migration_that_fails_is_told(database: Database, storage: Directory, sql: Path) -> None:
    (sql / "V2__by_hand.sql").write_text("SELECT nonsense;")

    shown = await of_an_earlier_version(database, storage)

    assert [step.step for step in shown.steps] == ["restore"]
    assert 'column "nonsense" does not exist' in shown.problems[0]


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("DELETE FROM vm_heartbeats", "public.vm_heartbeats has 0 rows instead of 1"),
        ("UPDATE pools SET lease_seconds = lease_seconds + 1", "public.pools has other contents than before"),
    ],
)
async def test_a_way_down_that_changes_rows_is_told(
    database: Database, storage: Directory, sql: Path, statement: str, what: str
) -> None:
    down = sql / "V2__by_hand.down.sql"
    down.write_text(f"ALTER TABLE vm_heartbeats DISABLE TRIGGER USER;\n{down.read_text()}\n")
    await some_life(database)
    await migrate.downgrade(database.dsn("lablink"), EARLIER)
    await back_up(database.dsn("lablink"), storage, ignore)
    down.write_text(f"{down.read_text()}\n{statement};\n")

    shown = await rehearse(database.dsn("lablink"), storage, "latest", ignore)

    assert f"after migrating down, {what}" in shown.problems

"""The commands around backups as an admin types them: what they print, how they exit, what Ctrl-C leaves."""

import json
import signal
from pathlib import Path

import pytest

from allocator.migrate import offline_sql
from tests.support.admin import answer, lablink
from tests.support.database import Database
from tests.support.machine import reached_by
from tests.support.under_way import started
from tests.support.up import run_lablink
from tests.support.upkeep import some_life


async def test_a_backup_is_made_listed_tried_out_and_restored(database: Database, tmp_path: Path) -> None:
    await some_life(database)

    made = await lablink(database, "db", "backup", "--to", str(tmp_path))
    listed = await lablink(database, "db", "backups", "--from", str(tmp_path))
    verified = await lablink(database, "db", "backup", "verify", "latest", "--from", str(tmp_path))
    rehearsed = await lablink(database, "db", "rehearse", "latest", "--from", str(tmp_path))
    refused = await lablink(database, "db", "restore", "latest", "--from", str(tmp_path))
    restored = await lablink(database, "db", "restore", "latest", "--from", str(tmp_path), "--force")

    assert f"{tmp_path} has the backup {database.name}-" in made.stdout, made.stderr
    assert f"{database.name}-" in listed.stdout
    assert "is as it must be." in verified.stdout, verified.stderr
    assert "No migration is pending" in rehearsed.stdout, rehearsed.stderr
    assert "is as it must be." in rehearsed.stdout
    assert refused.returncode == 1
    assert "live leases: 2, connected machines: 0" in refused.stderr
    assert "Leases that were live in it have failed (2)" in restored.stdout, restored.stderr
    drop = restored.stdout.strip().rpartition(": ")[2]
    assert drop.startswith("DROP DATABASE") and drop.endswith(";")
    owner = await database.connect()
    await owner.execute(drop)
    ran = await owner.fetch("SELECT kind, status FROM operations WHERE kind IN ('backup', 'restore') ORDER BY id")
    assert [tuple(row) for row in ran] == [("backup", "done"), ("restore", "done")]


async def test_programs_are_answered_in_json(database: Database, tmp_path: Path) -> None:
    await database.vm("vm-1")
    made = await answer(database, "db", "backup", "--to", str(tmp_path), "--keep-days", "3")
    (listed,) = await answer(database, "db", "backups", "--from", str(tmp_path))
    verified = await answer(database, "db", "backup", "verify", made["name"], "--from", str(tmp_path))

    assert made == listed
    assert made["events"] == await (await database.connect()).fetchval("SELECT count(*) FROM events")
    assert verified["problems"] == []
    assert verified["steps"][0]["step"] == "restore"


async def test_what_is_wrong_with_a_backup_is_printed_and_ends_with_1(database: Database, tmp_path: Path) -> None:
    made = await answer(database, "db", "backup", "--to", str(tmp_path))
    manifest = tmp_path / f"{made['name']}.json"
    manifest.write_text(manifest.read_text().replace('"public.pools": 1', '"public.pools": 2'))

    done = await lablink(database, "db", "backup", "verify", "latest", "--from", str(tmp_path))

    assert done.returncode == 1
    assert "Wrong: public.pools has 1 rows instead of 2" in done.stdout
    owner = await database.connect()
    verified = await owner.fetchrow("SELECT status, error FROM operations WHERE kind = 'backup verify'")
    assert verified and tuple(verified) == ("failed", "public.pools has 1 rows instead of 2")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["backup"], 2, "Where are the backups?"),
        (["backup", "--to", "s3://"], 1, "write s3://BUCKET"),
        (["backup", "--to", "", "--set=backup.to=/elsewhere"], 2, "Where are the backups?"),
        (["restore", "nothing", "--from", "/srv"], 1, "/srv has no complete backup."),
        (["restore", "nothing", "--from", "/nowhere"], 1, "There is no directory /nowhere."),
        (["backups", "--from", "/nowhere"], 1, "There is no directory /nowhere."),
        (["backup", "verify", "latest", "--from", "/nowhere"], 1, "There is no directory /nowhere."),
        (["backup", "--to", "/proc/backups"], 1, "/proc/backups cannot be used for backups"),
    ],
)
async def test_what_cannot_be_is_one_sentence(database: Database, arguments: list[str], code: int, said: str) -> None:
    done = await lablink(database, "db", *arguments)

    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


async def test_an_empty_place_says_so(database: Database, tmp_path: Path) -> None:
    done = await lablink(database, "db", "backups", "--from", str(tmp_path))
    assert (done.returncode, done.stdout.strip()) == (0, f"{tmp_path} has no backup yet.")


async def test_ctrl_c_leaves_no_backup_and_an_interrupted_operation(database: Database, tmp_path: Path) -> None:
    owner = await database.connect()
    async with owner.transaction():
        await owner.execute("LOCK TABLE pools IN ACCESS EXCLUSIVE MODE")  # pg_dump waits for it
        process = await started(database, "db", "backup", "--to", str(tmp_path))
        watcher = await database.connect("postgres")
        await reached_by(lambda: watcher.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))
        process.send_signal(signal.SIGINT)
        _, said = await process.communicate()

    assert (process.returncode, said) == (130, b"")
    assert list(tmp_path.iterdir()) == []
    row = await owner.fetchrow("SELECT status, error FROM operations WHERE kind = 'backup'")
    assert tuple(row or ()) == ("failed", "interrupted")


async def test_stamp_writes_down_a_version_and_sql_prints_the_way_there(database: Database) -> None:
    stamped = await lablink(database, "db", "stamp", "1")
    history = await answer(database, "db", "history")

    assert stamped.stdout.strip() == "The database is said to be at version 1."
    assert [step["applied"] for step in history][:2] == [True, False]
    assert run_lablink("db", "sql").stdout.strip() == offline_sql().strip()
    assert run_lablink("db", "sql", "--from", "1").stdout.strip() == offline_sql("1").strip()
    assert (await lablink(database, "db", "migrate", "--sql")).stdout.strip() == offline_sql("1").strip()


async def test_a_backup_is_an_operation_with_its_result(database: Database, tmp_path: Path) -> None:
    made = await answer(database, "db", "backup", "--to", str(tmp_path))

    owner = await database.connect()
    row = await owner.fetchrow("SELECT status, started_by, result FROM operations WHERE kind = 'backup'")
    assert row
    assert (row["status"], json.loads(row["result"])["name"]) == ("done", made["name"])
    assert row["started_by"].startswith("cli (")

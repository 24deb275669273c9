"""Backups by themselves: when the last is old enough, by one allocator, and again after a failure."""

import asyncio
import json
from pathlib import Path

import pytest

from allocator.config import ConfigError, Settings, load_settings
from allocator.operations import running
from allocator.schedule import BackupSchedule
from allocator.upkeep import UpkeepFailed
from allocator.upkeep.backup import backups
from allocator.upkeep.reach import connect
from allocator.upkeep.storage import Directory
from tests.support.database import PASSWORDS, Database
from tests.support.machine import reached_by
from tests.support.service import ready, running_service, settings_for
from tests.support.up import run_lablink

AGE = "UPDATE operations SET started_at = started_at - make_interval(hours => $1) WHERE kind = 'backup'"


@pytest.fixture
def settings(database: Database, tmp_path: Path) -> Settings:
    """Settings that ask for a backup a day."""
    password = tmp_path / "owner-password"
    password.write_text(PASSWORDS["lablink"])
    owner = f"database.owner.password='file:{password}'"
    backup = ("backup=local", f"backup.to={tmp_path / 'backups'}", "backup.keep_days=7")
    return settings_for(database, tmp_path, owner, *backup)


def schedule(settings: Settings) -> BackupSchedule:
    return BackupSchedule(settings.database, settings.backup)


async def test_a_backup_is_made_when_it_is_due_and_not_before(database: Database, settings: Settings) -> None:
    first = await schedule(settings).run_once()
    assert first
    assert await schedule(settings).run_once() is None

    owner = await database.connect()
    await owner.execute(AGE, 25)
    second = await schedule(settings).run_once()

    assert second
    assert await backups(Directory(Path(str(settings.backup.to)))) == [first, second]
    run = await owner.fetchrow("SELECT started_by, result FROM operations ORDER BY id DESC LIMIT 1")
    assert run
    assert run["started_by"].startswith("schedule on ")
    assert json.loads(run["result"])["name"] == second.name


async def test_of_several_allocators_one_makes_the_backup(settings: Settings) -> None:
    made = await asyncio.gather(*(schedule(settings).run_once() for _ in range(4)))
    assert sum(each is not None for each in made) == 1


async def test_while_something_else_runs_a_backup_waits(database: Database, settings: Settings) -> None:
    async with running(lambda: connect(database.dsn("lablink")), "rehearse", "ada"):
        assert await schedule(settings).run_once() is None
    assert await schedule(settings).run_once() is not None


async def test_a_backup_that_failed_is_tried_again_after_a_while(database: Database, settings: Settings) -> None:
    place = Path(str(settings.backup.to))
    place.write_text("in the way")
    with pytest.raises(UpkeepFailed):
        await schedule(settings).run_once()
    place.unlink()
    assert await schedule(settings).run_once() is None

    owner = await database.connect()
    await owner.execute(AGE, 1)
    assert await schedule(settings).run_once() is not None


async def test_a_running_service_makes_its_backup(database: Database, settings: Settings) -> None:
    owner = await database.connect()
    made = "SELECT EXISTS (SELECT FROM operations WHERE kind = 'backup' AND status = 'done')"
    async with running_service(settings) as service:
        await ready(service.service)
        await reached_by(lambda: owner.fetchval(made))


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["backup.every_hours=24"], "backup.every_hours: needs backup.to"),
        (["backup=s3"], "backup.to: is not set"),
        (["backup.to=somewhere"], "backup.to: string should match"),
        (["backup=local", "backup.keep_days=0"], "backup.keep_days: should be greater than or equal to 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(overrides: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_settings(overrides)


def test_without_being_asked_for_no_backup_is_made() -> None:
    assert load_settings().backup == load_settings(["backup=off"]).backup
    assert load_settings().backup.every_hours is None


def test_a_service_that_could_not_make_its_backups_does_not_start() -> None:
    ended = run_lablink("serve", "backup=local", "database.owner.password=env:NOT_SET", LABLINK_APP_PASSWORD="any")

    assert ended.returncode == 2
    assert ended.stderr == "The environment variable NOT_SET is not set: it must hold a secret.\n"

"""A fleet that could not grow wants no machine that was not made: the next apply is about something else."""

from pathlib import Path

import asyncpg
import pytest

from allocator.fleet import acts
from allocator.fleet.acts import Doer, perform
from allocator.fleet.description import Fleet
from allocator.fleet.refusals import FleetError, TooMuch
from tests.support.database import Database
from tests.support.fleet import fleet_without_cloud, owner_password
from tests.support.service import settings_for


async def test_what_could_not_be_made_is_not_wanted_any_more_whatever_the_reason(
    database: Database, owner: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    settings = settings_for(database, tmp_path, owner_password(tmp_path), *fleet_without_cloud(tmp_path))
    await owner.execute("INSERT INTO fleet_vms (hostname) VALUES ('vm-1')")

    with pytest.raises(FleetError) as refused:
        await perform(
            acts.grow(3, "default", "vm"), Fleet.of(settings.fleet), Doer(database.dsn("lablink"), "ada", "a test")
        )

    assert not isinstance(refused.value, TooMuch), "of which that was known"
    assert [row["hostname"] for row in await owner.fetch("SELECT hostname FROM fleet_vms")] == ["vm-1"]
    row = await owner.fetchrow("SELECT pool, status FROM operations WHERE kind = 'fleet grow'")
    assert row is not None
    assert tuple(row) == ("default", "failed")

"""Pools of machines in the cloud grow and shrink by themselves: the real terraform, on a stand-in for AWS."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from allocator.fleet.scale import FleetActuator
from allocator.scaling import Scaler
from tests.sql.steps import BOB, CYD, ask, lease_of
from tests.support.cloud import Aws, fresh, moto_server
from tests.support.database import PASSWORDS, Database
from tests.support.service import settings_for
from tests.terraform.machines import arrives, lend

pytestmark = pytest.mark.timeout(900)
BECAUSE = "SELECT because FROM lease_views WHERE id = $1"
OPERATIONS = "SELECT kind, status, result FROM operations WHERE kind LIKE 'fleet %' ORDER BY id"


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Aws]:
    with moto_server() as url:
        yield fresh(url, tmp_path)


@pytest.fixture
def scaler(
    database: Database,
    aws: Aws,
    tmp_path: Path,
    terraform_environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> Scaler:
    """What the service does every few seconds."""
    for name, value in (terraform_environment | aws.environment | {"OWNER": PASSWORDS["lablink"]}).items():
        monkeypatch.setenv(name, value)
    settings = settings_for(database, tmp_path, "database.owner.password=env:OWNER", *aws.options(tmp_path / "work"))
    return FleetActuator(settings.database, settings.fleet).scaler()


async def test_machines_are_made_as_people_come_and_idle_ones_removed(
    database: Database, scaler: Scaler, aws: Aws
) -> None:
    owner, service = await database.connect("lablink"), await database.connect("lablink_app")
    await owner.execute("UPDATE pools SET max_machines = 3, spare_machines = 1, shrink_after_seconds = 0")

    await scaler.run_once()
    assert set(aws.instances()) == {"vm-1"}
    await arrives(database, aws, "vm-1")
    ada = await lend(database)

    waiting = [(await ask(service, person))["lease_id"] for person in (BOB, CYD)]
    await scaler.run_once()
    assert set(aws.instances()) == {"vm-1", "vm-2", "vm-3"}
    await service.execute("SELECT sweep_forecasts()")
    assert (
        await service.fetchval(BECAUSE, waiting[0])
        == "2 machines are booting; the next lease ends in 8 h at the latest"
    )
    for hostname in ("vm-2", "vm-3"):
        await arrives(database, aws, hostname)
    assert [(await lease_of(owner, lease))["status"] for lease in waiting] == ["assigned", "assigned"]

    for lease in waiting:
        await service.execute("SELECT end_lease($1)", lease)
    await owner.execute("UPDATE vms SET status = 'available', cleaned_epoch = epoch WHERE status = 'cleaning'")
    await scaler.run_once()
    left = set(aws.instances())
    assert len(left) == 2 and "vm-1" in left
    assert (await lease_of(owner, ada["id"]))["live"]
    await scaler.run_once()
    assert set(aws.instances()) == left

    told = [(row["kind"], row["status"]) for row in await owner.fetch(OPERATIONS)]
    assert told == [("fleet grow", "done"), ("fleet grow", "done"), ("fleet shrink", "done")]
    removed = json.loads((await owner.fetch(OPERATIONS))[-1]["result"])["remove"]
    assert {"vm-1", "vm-2", "vm-3"} - left == set(removed)
    assert await owner.fetchval("SELECT count(*) FROM leases WHERE moves > 0 OR failure = 'vm-deleted'") == 0


async def test_what_cannot_be_made_is_not_tried_again_at_once_and_the_reason_is_told(
    database: Database, scaler: Scaler, aws: Aws
) -> None:
    owner = await database.connect("lablink")
    await owner.execute("UPDATE pools SET max_machines = 3, min_machines = 2")
    await owner.execute("INSERT INTO fleet_vms (hostname, instance_type) VALUES ('vm-1', 'x9.none')")
    await scaler.run_once()
    await scaler.run_once()

    assert [row["status"] for row in await owner.fetch(OPERATIONS)] == ["failed"]
    assert "x9.none" in await owner.fetchval("SELECT growth_stopped('default')")
    assert aws.instances() == {}

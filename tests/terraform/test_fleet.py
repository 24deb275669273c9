"""`lablink fleet` as ops type it: the real terraform and its AWS provider, on a stand-in for AWS."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest

from allocator.fleet.watch import FleetWatch
from tests.sql.steps import ADA, lease_of, row_of
from tests.support.cloud import Aws, fresh, moto_server
from tests.support.database import PASSWORDS, Database
from tests.support.service import settings_for
from tests.support.up import LOOK_EVERY, until
from tests.terraform.machines import arrives, lend
from tests.terraform.ops import Ops

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture
def aws(moto: str, tmp_path: Path) -> Aws:
    return fresh(moto, tmp_path)


@pytest.fixture
def ops(database: Database, aws: Aws, tmp_path: Path, terraform_environment: dict[str, str]) -> Ops:
    return Ops(database, aws, tmp_path / "work", terraform_environment)


@pytest.fixture
async def owner(database: Database) -> asyncpg.Connection:
    return await database.connect("lablink")


@pytest.fixture
def watch(
    database: Database,
    aws: Aws,
    tmp_path: Path,
    terraform_environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> FleetWatch:
    """What the service does once a minute, when it repairs."""
    for name, value in (terraform_environment | aws.environment | {"OWNER": PASSWORDS["lablink"]}).items():
        monkeypatch.setenv(name, value)
    settings = settings_for(
        database, tmp_path, "database.owner.password=env:OWNER", *aws.options(tmp_path / "work"), "fleet.repair=true"
    )
    return FleetWatch(settings.database, settings.fleet)


async def test_a_fleet_grows_shrinks_and_goes_without_taking_anybodys_machine(
    database: Database, owner: asyncpg.Connection, ops: Ops, aws: Aws
) -> None:
    grown = await ops.json("grow", "3")
    assert grown["make"] == ["vm-1", "vm-2", "vm-3"]
    made = aws.instances()
    assert set(made) == {"vm-1", "vm-2", "vm-3"}

    await arrives(database, aws, "vm-2")
    assert aws.token("vm-2") not in aws.state()
    lease = await lend(database)
    refused = await ops.type("destroy", "--yes", code=1)
    assert "somebody is on vm-2" in refused and ADA in refused
    assert "Add --drain" in await ops.type("shrink", "3", code=1)
    assert aws.instances() == made

    shrunk = await ops.json("shrink", "2")
    assert sorted(shrunk["remove"]) == ["vm-1", "vm-3"]
    assert aws.instances() == {"vm-2": made["vm-2"]}
    assert (await lease_of(owner, lease["id"]))["live"]

    await owner.execute("UPDATE fleet_vms SET wanted = false")
    planned = await ops.json("plan")
    assert planned["remove"] == ["vm-2"] and ADA in planned["in_the_way"][0]
    failed = await owner.fetch("SELECT error FROM operations WHERE status = 'failed'")
    assert [ADA in row["error"] for row in failed] == [True, False]  # whom the destroy met; a shrink only counts

    going = ops.start("destroy", "--yes", "--drain")
    await draining(owner, "vm-2")
    await owner.execute("UPDATE leases SET status = 'cancelled' WHERE live")
    await ops.said(going)
    assert aws.instances() == {}
    assert aws.identities() == 0
    assert await owner.fetchval("SELECT count(*) FROM fleet_vms") == 0
    assert await owner.fetchval("SELECT count(*) FROM leases WHERE failure = 'vm-deleted'") == 0


async def test_a_machine_is_replaced_by_one_of_todays_type_and_one_that_is_gone_by_another(
    database: Database, owner: asyncpg.Connection, ops: Ops, aws: Aws, watch: FleetWatch
) -> None:
    made = (await ops.json("grow", "2", "--prefix", "gpu"), aws.instances())[1]
    await arrives(database, aws, "gpu-1")
    lease = await lend(database)
    told = json.loads(aws.settings.read_text())
    told["variables"]["settings"]["defaults"]["instance_type"] = "t3.xlarge"
    aws.settings.write_text(json.dumps(told))
    aws.client("ec2").terminate_instances(InstanceIds=[made["gpu-1"]])

    replaced = await ops.json("replace", "gpu-2")

    assert (replaced["replace"], replaced["make"]) == (["gpu-2"], ["gpu-1"])
    waits = await lease_of(owner, lease["id"])
    assert (waits["status"], waits["hostname"], waits["moves"]) == ("queued", None, 1)
    now = aws.instances()
    assert set(now) == set(made) and not set(now.values()) & set(made.values())
    found = aws.client("ec2").describe_instances(InstanceIds=list(now.values()))["Reservations"]
    assert {each["InstanceType"] for group in found for each in group["Instances"]} == {"t3.xlarge"}

    await arrives(database, aws, "gpu-2")
    moved = await lease_of(owner, lease["id"])
    assert (moved["status"], moved["hostname"]) == ("assigned", "gpu-2")
    await owner.execute("UPDATE vms SET status = 'failed', reason = 'lost' WHERE hostname = 'gpu-2'")
    await owner.execute("UPDATE fleet_vms SET reboots = 3 WHERE hostname = 'gpu-2'")
    await database.let_pass(3600)
    await watch.run_once()
    assert aws.instances()["gpu-1"] == now["gpu-1"]
    assert aws.instances()["gpu-2"] != now["gpu-2"]


async def test_what_is_killed_is_said_again_and_ends_right(owner: asyncpg.Connection, ops: Ops, aws: Aws) -> None:
    first = ops.start("grow", "2")
    os.kill(await at_work(ops, aws), signal.SIGKILL)
    await ops.said(first, 1)
    left = aws.identities()
    assert left

    second = ops.start("grow", "2")
    await at_work(ops, aws)
    second.kill()
    await asyncio.to_thread(second.communicate)

    await ops.json("grow", "2")

    assert set(aws.instances()) == {"vm-1", "vm-2"}
    assert aws.identities() == 6
    assert await ops.json("aliens") == []
    assert await owner.fetchval("SELECT count(*) FROM fleet_vms WHERE invited_at IS NOT NULL") == 2
    statuses = [
        row[0] for row in await owner.fetch("SELECT status FROM operations WHERE kind = 'fleet grow' ORDER BY id")
    ]
    assert statuses == ["failed", "failed", "done"]


async def draining(owner: asyncpg.Connection, hostname: str) -> None:
    """Returns when the machine is lent to nobody any more."""
    async with asyncio.timeout(300):
        while not (await row_of(owner, hostname))["draining"]:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_EVERY)


async def at_work(ops: Ops, aws: Aws) -> int:
    """The process of a terraform that has begun to make instances."""
    running = ops.work / "running"

    def begun() -> int | None:
        with suppress(OSError, ValueError):
            pid = int(json.loads(running.read_text())["pid"])
            applies = b"\0apply\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
            return pid if applies and aws.instances("pending", "running") else None
        return None

    return await asyncio.to_thread(until, begun, "an instance", 300)

"""What the service and ops know of machines in the cloud without Terraform: EC2's answers, repairs, waits, limits."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from moto.servicequotas.models import ServiceQuotasBackend

from allocator.config import Settings
from allocator.fleet import limits, record
from allocator.fleet.description import Fleet
from allocator.fleet.reconcile import aliens, mend, settle_gone
from allocator.fleet.refusals import InUse, NoFleet, NotOfFleet, TerraformFailed, TooMuch
from allocator.fleet.terraform import Terraform
from allocator.fleet.watch import FleetWatch
from tests.sql.steps import lease_of, lent, row_of
from tests.support.cloud import AMI, NAME, Aws, fresh, moto_server
from tests.support.database import PASSWORDS, Database
from tests.support.service import settings_for


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture
def aws(moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Aws:
    aws = fresh(moto, tmp_path)
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    return aws


@pytest.fixture
def settings(database: Database, aws: Aws, tmp_path: Path) -> Settings:
    password = tmp_path / "owner-password"
    password.write_text(PASSWORDS["lablink"])
    owner = f"database.owner.password='file:{password}'"
    return settings_for(database, tmp_path, owner, *aws.options(tmp_path / "work"))


@pytest.fixture
def fleet(settings: Settings) -> Fleet:
    return Fleet.of(settings.fleet)


@pytest.fixture
async def service(database: Database) -> asyncpg.Connection:
    return await database.connect("lablink_app", **{"lablink.actor": "web"})


def launch(aws: Aws, *hostnames: str) -> dict[str, str]:
    """Instances with the tags of a fleet, by hostname."""
    ec2 = aws.client("ec2")
    found = {}
    for hostname in hostnames:
        tags = [{"Key": "lablink", "Value": NAME}, {"Key": "lablink-hostname", "Value": hostname}]
        answer = ec2.run_instances(
            ImageId=AMI,
            MinCount=1,
            MaxCount=1,
            InstanceType="t3.large",
            TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
        )
        found[hostname] = str(answer["Instances"][0]["InstanceId"])
    return found


async def known(owner: asyncpg.Connection, instances: dict[str, str], minutes: int = 10) -> None:
    """The record has them, since so many minutes."""
    await owner.execute("INSERT INTO fleet_vms (hostname) SELECT unnest($1::text[])", list(instances))
    await record.made(owner, instances)
    since = "clock() - make_interval(mins => $1)"
    await owner.execute(f"UPDATE fleet_vms SET made_at = {since}, invited_at = {since}", minutes)


async def test_whoever_is_on_an_instance_that_ended_waits_for_the_one_that_the_next_apply_makes(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, aws: Aws, settings: Settings
) -> None:
    _, lease = await lent(database, service)
    instances = launch(aws, "vm-1", "vm-2")
    await known(owner, instances)
    aws.client("ec2").terminate_instances(InstanceIds=[instances["vm-1"]])

    await FleetWatch(settings.database, settings.fleet).run_once()

    ended = await lease_of(owner, lease)
    assert (ended["status"], ended["trouble"]) == ("queued", "vm-deleted")
    assert (await row_of(owner))["status"] == "retired"
    assert await owner.fetchval("SELECT instance_id FROM fleet_vms WHERE hostname = 'vm-2'") == instances["vm-2"]


async def test_where_many_are_just_not_seen_we_look_in_the_wrong_place(owner: asyncpg.Connection, fleet: Fleet) -> None:
    await known(owner, {f"vm-{n}": f"i-{n}" for n in range(4)})
    assert await settle_gone(fleet, owner) == []


async def test_an_instance_that_ec2_does_not_show_yet_is_waited_for(owner: asyncpg.Connection, fleet: Fleet) -> None:
    await known(owner, {"vm-1": "i-1"}, minutes=1)
    assert await settle_gone(fleet, owner) == []
    await owner.execute("UPDATE fleet_vms SET made_at = made_at - interval '5 minutes'")
    assert await settle_gone(fleet, owner) == ["vm-1"]


async def test_what_is_there_without_the_other_is_listed_with_what_mends_it(
    owner: asyncpg.Connection, aws: Aws, fleet: Fleet
) -> None:
    instances = launch(aws, "vm-1", "nobody", "unwanted")
    await known(owner, {"vm-1": instances["vm-1"], "gone": "i-gone"}, minutes=90)
    state = {
        f'module.fleet.aws_instance.this["{name}"]': {"id": instance}
        for name, instance in {"unwanted": instances["unwanted"], "old": "i-old"}.items()
    }

    found = {each.hostname: (each.what, each.cure) for each in await aliens(fleet, owner, state)}

    assert found == {
        "nobody": ("instance without row", f"lablink fleet mend {instances['nobody']}"),
        "unwanted": ("instance without row", "lablink fleet apply"),
        "gone": ("row without instance", "lablink fleet mend gone"),
        "vm-1": ("instance not in service", "lablink fleet replace vm-1"),
        "old": ("state without instance", "lablink fleet apply"),
    }


async def test_each_is_mended_by_one_command_and_nobodys_machine_is_ended(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, aws: Aws, fleet: Fleet
) -> None:
    instances = launch(aws, "vm-1", "nobody")
    await lent(database, service)
    await known(owner, {"gone": "i-gone"})
    found = await aliens(fleet, owner, {})

    await mend(fleet, owner, found, instances["nobody"])
    await mend(fleet, owner, found, "gone")
    with pytest.raises(InUse, match="vm-1"):
        await mend(fleet, owner, found, "vm-1")
    with pytest.raises(NotOfFleet):
        await mend(fleet, owner, found, "never-heard-of")

    assert set(aws.instances()) == {"vm-1"}
    assert [each.hostname for each in await aliens(fleet, owner, {})] == ["vm-1"]


async def test_a_machine_that_failed_is_rebooted_once_however_many_allocators_look(
    database: Database, owner: asyncpg.Connection, aws: Aws, settings: Settings
) -> None:
    await database.vm()
    await known(owner, launch(aws, "vm-1"))
    await owner.execute("UPDATE vms SET status = 'failed', reason = 'lost'")
    await database.let_pass(601)
    repairing = settings.fleet.model_copy(update={"repair": True})

    await asyncio.gather(*(FleetWatch(settings.database, repairing).run_once() for _ in range(3)))

    assert await owner.fetchval("SELECT reboots FROM fleet_vms") == 1
    assert (await row_of(owner))["status"] == "failed"


async def test_a_machine_that_ec2_does_not_reboot_keeps_no_other_waiting(
    database: Database, owner: asyncpg.Connection, aws: Aws, settings: Settings
) -> None:
    for hostname in ("vm-1", "vm-2"):
        await database.vm(hostname)
    await known(owner, {"vm-1": "i-0123456789abcdef0", **launch(aws, "vm-2")})
    await owner.execute("UPDATE vms SET status = 'failed', reason = 'lost'")
    await database.let_pass(601)
    await owner.execute("UPDATE fleet_vms SET made_at = clock() - interval '4 minutes'")
    repairing = settings.fleet.model_copy(update={"repair": True, "cool_down_seconds": 200.0})

    await FleetWatch(settings.database, repairing).run_once()

    rows = await owner.fetch("SELECT hostname, reboots FROM fleet_vms ORDER BY hostname")
    assert [tuple(row) for row in rows] == [("vm-1", 0), ("vm-2", 1)]


async def test_a_machine_that_somebody_is_on_is_not_what_a_killed_run_left(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await lent(database, service)
    await known(owner, {"vm-1": "i-1", "vm-2": "i-2"})
    await owner.execute("UPDATE fleet_vms SET wanted = false")

    assert await record.unwanted(owner) == ["vm-2"]


async def test_nobody_is_waited_for_where_more_are_to_go_than_there_are(owner: asyncpg.Connection) -> None:
    await known(owner, {"vm-1": "i-1", "vm-2": "i-2"})
    assert await record.leavers(owner, 2, None) == ["vm-1", "vm-2"]
    assert await record.leavers(owner, 3, None) == []


async def test_how_the_run_ended_that_was_over_last_counts_and_no_other(owner: asyncpg.Connection) -> None:
    assert await record.ended_well(owner)
    for kind, status, minutes in (
        ("fleet shrink", "failed", 1),
        ("fleet grow", "done", 2),
        ("fleet plan", "done", 0),
        ("fleet destroy", "waiting", None),
        ("fleet apply", "running", None),
    ):
        await owner.execute(
            "INSERT INTO operations (kind, started_by, status, finished_at, error) VALUES ($1, 'cli', $2, "
            "clock() - make_interval(mins => $3), CASE $2 WHEN 'failed' THEN 'interrupted' END)",
            *(kind, status, minutes),
        )

    assert not await record.ended_well(owner)
    await owner.execute("UPDATE operations SET finished_at = clock() WHERE kind = 'fleet grow'")
    assert await record.ended_well(owner)


async def test_a_type_that_the_region_does_not_have_is_refused(fleet: Fleet) -> None:
    with pytest.raises(TooMuch, match=r"no t3\.hugest"):
        await limits.check(fleet.cloud, ["t3.large", "t3.hugest"])


async def test_more_processors_than_the_account_may_have_are_refused_by_family(
    fleet: Fleet, aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quota(_self: object, service_code: str, quota_code: str) -> dict[str, Any]:
        assert service_code == "ec2"
        return {"QuotaCode": quota_code, "Value": {"L-DB2E81BA": 16.0, "L-1216C47A": 3.0}[quota_code]}

    await limits.check(fleet.cloud, ["g5.xlarge"] * 100)  # AWS does not say: Terraform will
    monkeypatch.setattr(ServiceQuotasBackend, "get_service_quota", quota)
    await limits.check(fleet.cloud, ["g5.xlarge"] * 4)
    with pytest.raises(TooMuch, match=r"L-DB2E81BA"):
        await limits.check(fleet.cloud, ["g5.xlarge"] * 5)
    launch(aws, "vm-1")
    with pytest.raises(TooMuch, match=r"Standard"):
        await limits.check(fleet.cloud, ["t3.large"])


@pytest.mark.parametrize("content", [None, "{}", "no JSON"])
def test_a_file_that_is_not_the_platforms_says_how_to_write_it(
    content: str | None, settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "other.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(NoFleet, match="fleet_settings"):
        Fleet.of(settings.fleet.model_copy(update={"settings": file}))


async def test_a_root_that_is_not_there_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(TerraformFailed, match=r"no-such-root; fleet\.root"):
        await Terraform(tmp_path / "no-such-root", tmp_path / "work").init({})


async def test_a_terraform_that_is_only_asked_ends_with_whoever_asked(tmp_path: Path) -> None:
    (tmp_path / "work" / "terraform" / "root").mkdir(parents=True)
    for name in ("asked", "answers"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "terraform").write_text(f"#!/bin/sh\necho $$ > {tmp_path}/asked\nexec cat {tmp_path}/answers\n")
    (tmp_path / "terraform").chmod(0o755)
    asking = asyncio.create_task(
        Terraform(tmp_path / "root", tmp_path / "work", {"PATH": f"{tmp_path}:{os.environ['PATH']}"}).state()
    )
    number = int(await asyncio.to_thread((tmp_path / "asked").read_text))
    asking.cancel()
    await asyncio.wait([asking])

    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)

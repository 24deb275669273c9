"""The real terraform and the real provider make all of it and remove it again; only AWS is a stand-in.

It is waiting that takes minutes here: the provider looks every half minute whether a database is there, or gone.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore
import pytest

from allocator.config import load_settings
from tests.support.cloud import AMI, emptied, moto_server
from tests.terraform.conftest import ROOT

REGION = "eu-central-1"
BUCKET = "lablink-test-bucket"

NEEDS_NO_RIGHT = {"sts:GetCallerIdentity"}
OTHER_NAMES = {"s3:HeadObject": "s3:GetObject", "s3:ListObjectsV2": "s3:ListBucket"}
SERVICES = {"EC2": "ec2", "IAM": "iam", "S3": "s3", "STS": "sts", "Secrets Manager": "secretsmanager"}


class Cloud:
    """AWS, as moto plays it, with an empty bucket for states."""

    def __init__(self, address: str) -> None:
        self.environment = {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": REGION,
        }
        self.address = address
        place: Any = {"LocationConstraint": REGION}
        self.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration=place)

    def client(self, service: Any) -> Any:
        given = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": REGION}
        return boto3.client(service, endpoint_url=self.address, **given)  # type: ignore[call-overload]

    def instances(self) -> dict[str, str]:
        """The instances that run, by their names."""
        running: Any = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
        found = self.client("ec2").describe_instances(Filters=running)["Reservations"]
        every = [instance for reservation in found for instance in reservation["Instances"]]
        return {next(t["Value"] for t in each["Tags"] if t["Key"] == "Name"): each["InstanceId"] for each in every}

    def leftovers(self) -> list[str]:
        """What a destroy should have taken with it."""
        ec2, iam = self.client("ec2"), self.client("iam")
        networks: Any = [{"Name": "is-default", "Values": ["false"]}]
        return [
            *self.instances(),
            *(each["VpcId"] for each in ec2.describe_vpcs(Filters=networks)["Vpcs"]),
            *(each["PublicIp"] for each in ec2.describe_addresses()["Addresses"]),
            *(each["RoleName"] for each in iam.list_roles()["Roles"]),
            *(each["InstanceProfileName"] for each in iam.list_instance_profiles()["InstanceProfiles"]),
            *(each["Name"] for each in self.client("secretsmanager").list_secrets()["SecretList"]),
            *(each["DBInstanceIdentifier"] for each in self.client("rds").describe_db_instances()["DBInstances"]),
        ]


class Root:
    """A root module in a directory of its own, with its state in the cloud's bucket."""

    def __init__(self, directory: Path, environment: dict[str, str], key: str) -> None:
        self.directory, self.environment = directory, environment
        self.log = directory / "calls.log"
        backend = {"bucket": BUCKET, "key": f"{key}/terraform.tfstate", "region": REGION, "use_path_style": "true"}
        self.run("init", *(f"-backend-config={name}={value}" for name, value in backend.items()))

    def run(self, *words: str) -> str:
        environment = self.environment | {"TF_LOG": "DEBUG", "TF_LOG_PATH": str(self.log)}
        done = subprocess.run(
            ["terraform", *words, "-no-color"],
            cwd=self.directory, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr
        return done.stdout

    def change(self, command: str, variables: dict[str, Any]) -> None:
        (self.directory / "given.tfvars.json").write_text(json.dumps(variables))
        self.run(command, "-auto-approve", "-var-file=given.tfvars.json")

    def outputs(self) -> dict[str, Any]:
        return {name: output["value"] for name, output in json.loads(self.run("output", "-json")).items()}

    def calls(self) -> set[str]:
        """What AWS was asked to do, as roles' policies name it."""
        sent = [line for line in self.log.read_text().splitlines() if "HTTP Request Sent" in line]
        found = [re.search(r'rpc\.method=(\w+) rpc\.service="?([\w ]+?)"? rpc\.system', line) for line in sent]
        named = {f"{SERVICES[each[2]]}:{each[1]}" for each in found if each}
        return {OTHER_NAMES.get(name, name) for name in named} - NEEDS_NO_RIGHT


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with moto_server() as url:
        yield Cloud(emptied(url))


@pytest.fixture
def environment(cloud: Cloud, terraform_environment: dict[str, str]) -> dict[str, str]:
    return terraform_environment | cloud.environment


def allowed() -> set[str]:
    """What the allocator's role may do."""
    return set(re.findall(r'"((?:ec2|iam|s3|secretsmanager):\w+)"', (ROOT / "modules/allocator/role.tf").read_text()))


def settings_of(cloud: Cloud) -> dict[str, Any]:
    """What the platform would tell the fleet, in the network that every account has."""
    subnet = cloud.client("ec2").describe_subnets()["Subnets"][0]
    inside: Any = [{"Name": "vpc-id", "Values": [subnet["VpcId"]]}]
    group = cloud.client("ec2").describe_security_groups(Filters=inside)["SecurityGroups"][0]
    return {
        "name": "lablink-test",
        "defaults": {"ami_id": AMI},
        "subnet_ids": [subnet["SubnetId"]],
        "security_group_id": group["GroupId"],
        "allocator_url": "https://lablink.example.org",
        "client_package": "lablink==1.0",
        "permissions_boundary": "arn:aws:iam::123456789012:policy/lablink-test-vm",
    }


@pytest.mark.timeout(900)
def test_machines_come_and_go_by_name_with_what_the_allocator_s_role_allows(
    cloud: Cloud, copy: Path, environment: dict[str, str]
) -> None:
    fleet = Root(copy / "fleet", environment, "fleet")
    given = {"region": REGION, "settings": settings_of(cloud)}
    fleet.change("apply", given | {"vms": {"vm-1": {}, "vm-2": {}}})
    before = cloud.instances()
    assert set(before) == {"lablink-test-vm-1", "lablink-test-vm-2"}

    cloud.client("secretsmanager").put_secret_value(SecretId="lablink-test/join/vm-2", SecretString="a join token")
    newer = {**given, "settings": settings_of(cloud) | {"client_package": "lablink==2.0"}}
    fleet.change("apply", newer | {"vms": {"vm-2": {"disk_gb": 90, "instance_type": "g5.xlarge"}, "vm-3": {}}})
    after = cloud.instances()
    assert set(after) == {"lablink-test-vm-2", "lablink-test-vm-3"}
    assert after["lablink-test-vm-2"] == before["lablink-test-vm-2"], "whoever has it keeps it, whatever is newer"
    state = cloud.client("s3").get_object(Bucket=BUCKET, Key="fleet/terraform.tfstate")["Body"].read().decode()
    assert "lablink-test/join/vm-2" in state
    assert "a join token" not in state

    fleet.change("destroy", newer | {"vms": {}})
    assert cloud.leftovers() == []
    assert fleet.calls() - allowed() <= {"ec2:ModifyNetworkInterfaceAttribute"}, "moto forgets an instance's group"


@pytest.mark.timeout(900)
def test_a_platform_with_rds_comes_and_goes(cloud: Cloud, copy: Path, environment: dict[str, str]) -> None:
    platform = Root(copy, environment, "platform")
    given = {
        "name": "lablink-test",
        "region": REGION,
        "bucket": BUCKET,
        "hostname": "lablink.example.org",
        "allocator": {"images": {"allocator": "ghcr.io/talmolab/lablink-allocator-image:1.0"}, "ami_id": AMI},
        "machines": {"client_package": "lablink==1.0", "ami_id": AMI},
        # Windows that touch, as the default ones do, are too near for moto.
        "database": {"deletion_protection": False, "maintenance_window": "mon:05:00-mon:06:00"},
    }
    platform.change("apply", given)
    outputs = platform.outputs()
    assert f"database.host={outputs['database']['host']}" in outputs["settings"]
    assert outputs["public_ip"] in outputs["psql"]
    authority = Path(botocore.__file__).with_name("cacert.pem")
    settings = load_settings([*outputs["settings"], f"database.ca_file={authority}"])
    assert settings.server.url == outputs["url"]
    assert set(cloud.instances()) == {"lablink-test-allocator"}
    platform.change("destroy", given)
    assert cloud.leftovers() == []

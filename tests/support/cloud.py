"""A stand-in for AWS: moto's server, with a network for machines and a bucket for Terraform's state."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.request import Request, urlopen

import boto3
from moto.server import ThreadedMotoServer

AMI = "ami-03cf127a"
"""One that moto knows: to list all of them takes it seconds."""
REGION: Final = "eu-central-1"
BUCKET, NAME = "lablink-test-states", "lablink-test"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": REGION}


@dataclass(frozen=True)
class Aws:
    """AWS as a test sees it, with what a fleet needs."""

    url: str
    settings: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which boto3 and terraform go there."""
        return leads_to(self.url) | {"AWS_ENDPOINT_URL_S3": self.url, "AWS_EC2_METADATA_DISABLED": "true"}

    def client(self, service: str) -> Any:
        """A client of one of its services."""
        return boto3.client(  # type: ignore[call-overload]
            service, endpoint_url=self.url, region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test"
        )

    def options(self, work: Path) -> list[str]:
        """The settings with which a fleet is made there."""
        return ["fleet=aws", f"fleet.settings={self.settings}", f"fleet.work={work}", "fleet.repair=false"]

    def instances(self, *states: str) -> dict[str, str]:
        """Instances in these states (running), by the hostname that their tag says."""
        filters = [{"Name": "instance-state-name", "Values": list(states or ("running",))}]
        groups = self.client("ec2").describe_instances(Filters=filters)["Reservations"]
        found = [each for group in groups for each in group["Instances"]]
        return {
            tag["Value"]: each["InstanceId"]
            for each in found
            for tag in each["Tags"]
            if tag["Key"] == "lablink-hostname"
        }

    def token(self, hostname: str) -> str:
        """What is in a machine's secret."""
        manager = self.client("secretsmanager")
        return str(manager.get_secret_value(SecretId=f"{NAME}/join/{hostname}")["SecretString"])

    def state(self) -> str:
        """Terraform's state, as it lies in the bucket."""
        body = self.client("s3").get_object(Bucket=BUCKET, Key="fleet/terraform.tfstate")["Body"]
        return str(body.read().decode())

    def identities(self) -> int:
        """How many roles, profiles and secrets of machines there are."""
        iam, manager = self.client("iam"), self.client("secretsmanager")
        roles, profiles = iam.list_roles()["Roles"], iam.list_instance_profiles()["InstanceProfiles"]
        return len([*roles, *profiles, *manager.list_secrets()["SecretList"]])


@contextmanager
def moto_server() -> Iterator[str]:
    """The address of a server, on a port of its own."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def leads_to(url: str) -> dict[str, str]:
    """The environment in which boto3 takes the server at this address for AWS."""
    return KEYS | {"AWS_ENDPOINT_URL": url}


def emptied(url: str) -> str:
    """The same address, where nothing is any more: all of a process's servers know the same."""
    urlopen(Request(f"{url}/moto-api/reset", method="POST")).close()
    return url


def fresh(url: str, directory: Path) -> Aws:
    """An AWS in which nothing is but what a fleet needs."""
    emptied(url)
    aws = Aws(url, directory / "fleet.json")
    aws.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    ec2 = aws.client("ec2")
    network = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=network, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(GroupName="vms", Description="vms", VpcId=network)["GroupId"]
    settings = {
        "name": NAME,
        "defaults": {"ami_id": AMI, "instance_type": "t3.large"},
        "subnet_ids": [subnet],
        "security_group_id": group,
        "allocator_url": "https://lablink.example.org",
    }
    backend = {"bucket": BUCKET, "key": "fleet/terraform.tfstate", "region": REGION, "use_path_style": "true"}
    aws.settings.write_text(json.dumps({"backend": backend, "variables": {"region": REGION, "settings": settings}}))
    return aws

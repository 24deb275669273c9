"""What EC2 knows of one instance: how it is, whose it is, and what it wrote to its console."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from allocator.errors import CloudAway

PATIENCE = Config(connect_timeout=3, read_timeout=8, retries={"mode": "standard", "total_max_attempts": 3})


@dataclass(frozen=True, slots=True)
class Found:
    """An instance as EC2 tells it."""

    state: str
    tags: Mapping[str, str]


def look(instance: str, region: str) -> Found | None:
    """The instance, or None where there is none of that name. Raises CloudAway."""
    try:
        answer = _ec2(region).describe_instances(InstanceIds=[instance])
    except ClientError as error:
        if error.response["Error"]["Code"].startswith("InvalidInstanceID"):
            return None
        raise CloudAway(why=error.response["Error"]["Code"]) from error
    except BotoCoreError as error:
        raise CloudAway(why=type(error).__name__) from error
    found = [each for group in answer["Reservations"] for each in group["Instances"]]
    if not found:
        return None
    return Found(found[0]["State"]["Name"], {tag["Key"]: tag["Value"] for tag in found[0].get("Tags", [])})


def console(instance: str, region: str) -> str:
    """What it wrote to its console, as far as EC2 has it. Raises CloudAway."""
    try:
        return str(_ec2(region).get_console_output(InstanceId=instance).get("Output", ""))
    except (BotoCoreError, ClientError) as error:
        raise CloudAway(why=type(error).__name__) from error


def _ec2(region: str) -> Any:
    return boto3.client("ec2", region_name=region, config=PATIENCE)

"""All that is asked of AWS beside Terraform: boto3 in threads, a few at a time, patient where it is throttled."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from allocator.fleet.refusals import CloudRefused

T = TypeVar("T")

AT_ONCE = 8
GONE = ("shutting-down", "terminated")
NOT_THERE = ("NoSuchEntity", "ResourceNotFoundException", "NoSuchResourceException")
FLEET, HOSTNAME = "lablink", "lablink-hostname"
"""The tags of every machine of a fleet."""


@dataclass(frozen=True, slots=True)
class Instance:
    """An EC2 instance with our tag."""

    id: str
    hostname: str
    state: str
    kind: str

    @property
    def is_gone(self) -> bool:
        """Whether it is ended for good."""
        return self.state in GONE


class Cloud:
    """One region of AWS. Credentials are boto3's own business. Every method raises CloudRefused."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def instances(self, fleet: str) -> list[Instance]:
        """Every instance of that fleet, those that ended within the last hour among them."""
        ours = [{"Name": f"tag:{FLEET}", "Values": [fleet]}]
        return [_instance(each) for each in await self._instances(ours)]

    async def running_types(self) -> list[str]:
        """The type of every instance of this account that runs in the region, whoever's it is."""
        found = await self._instances([{"Name": "instance-state-name", "Values": ["pending", "running"]}])
        return [str(each["InstanceType"]) for each in found if each.get("InstanceLifecycle") != "spot"]

    async def put_secret(self, name: str, value: str) -> None:
        """Make that the content of a secret that is there."""
        await self._ask(lambda: self._secrets.put_secret_value(SecretId=name, SecretString=value))

    async def reboot(self, instance: str) -> None:
        """Reboot it; after four minutes EC2 does it the hard way."""
        await self._ask(lambda: self._ec2.reboot_instances(InstanceIds=[instance]))

    async def terminate(self, instances: Iterable[str]) -> None:
        """End them for good."""
        ids = list(instances)
        if ids:
            await self._ask(lambda: self._ec2.terminate_instances(InstanceIds=ids))

    async def processors(self, kinds: Iterable[str]) -> dict[str, int]:
        """How many virtual processors each of these types has; of a type that is not known, none."""
        wanted = [{"Name": "instance-type", "Values": sorted(set(kinds))}]

        def listed() -> dict[str, int]:
            pages = self._ec2.get_paginator("describe_instance_types").paginate(Filters=wanted)
            found = [each for page in pages for each in page["InstanceTypes"]]
            return {str(each["InstanceType"]): each["VCpuInfo"]["DefaultVCpus"] for each in found}

        return await self._ask(listed) if wanted[0]["Values"] else {}

    async def quota(self, code: str) -> float | None:
        """The account's limit of that code; None where AWS does not say."""
        answer = await self._found(lambda: self._quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code))
        return float(answer["Quota"]["Value"]) if answer else None

    async def role(self, name: str) -> str | None:
        """The name of that role, if it is there."""
        return name if await self._found(lambda: self._iam.get_role(RoleName=name)) else None

    async def profile(self, name: str) -> str | None:
        """The name of that instance profile, if it is there."""
        return name if await self._found(lambda: self._iam.get_instance_profile(InstanceProfileName=name)) else None

    async def secret(self, name: str) -> str | None:
        """The ARN of that secret, if it is there."""
        found = await self._found(lambda: self._secrets.describe_secret(SecretId=name))
        return None if found is None or "DeletedDate" in found else str(found["ARN"])

    async def remove_identity(self, role: str, secret: str) -> None:
        """Remove a machine's role, profile (of the same name) and secret; what is not there is none to remove."""
        iam = self._iam
        for step in (
            lambda: iam.remove_role_from_instance_profile(InstanceProfileName=role, RoleName=role),
            lambda: iam.delete_instance_profile(InstanceProfileName=role),
            lambda: iam.delete_role_policy(RoleName=role, PolicyName="join"),
            lambda: iam.delete_role(RoleName=role),
            lambda: self._secrets.delete_secret(SecretId=secret, ForceDeleteWithoutRecovery=True),
        ):
            await self._found(step)

    async def _instances(self, filters: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
        def listed() -> list[Mapping[str, Any]]:
            pages = self._ec2.get_paginator("describe_instances").paginate(Filters=filters)
            return [each for page in pages for group in page["Reservations"] for each in group["Instances"]]

        return await self._ask(listed)

    async def _found(self, question: Callable[[], T]) -> T | None:
        """The answer, or None where what is asked for is not there."""

        from botocore.exceptions import ClientError

        def asked() -> T | None:
            try:
                return question()
            except ClientError as error:
                if error.response["Error"]["Code"] in NOT_THERE:
                    return None
                raise

        return await self._ask(asked)

    async def _ask(self, question: Callable[[], T]) -> T:
        from botocore.exceptions import BotoCoreError, ClientError

        async with self._turns:
            try:
                return await asyncio.to_thread(question)
            except (BotoCoreError, ClientError) as error:
                raise CloudRefused(str(error)) from error

    @cached_property
    def _ec2(self) -> Any:
        return self._client("ec2")

    @cached_property
    def _iam(self) -> Any:
        return self._client("iam")

    @cached_property
    def _secrets(self) -> Any:
        return self._client("secretsmanager")

    @cached_property
    def _quotas(self) -> Any:
        return self._client("service-quotas")

    def _client(self, service: str) -> Any:
        """A client of one service. It takes a second to import, and who has no machines in the cloud needs none."""
        import boto3
        from botocore.config import Config

        patient = Config(
            region_name=self._region,
            retries={"mode": "standard", "total_max_attempts": 8},
            connect_timeout=5,
            read_timeout=30,
            max_pool_connections=AT_ONCE,
        )
        return boto3.client(service, config=patient)  # type: ignore[call-overload]


def _instance(told: Mapping[str, Any]) -> Instance:
    tags = {tag["Key"]: tag["Value"] for tag in told.get("Tags", [])}
    return Instance(str(told["InstanceId"]), tags.get(HOSTNAME, ""), told["State"]["Name"], str(told["InstanceType"]))

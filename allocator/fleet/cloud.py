"""All that is asked of AWS beside Terraform: boto3 in threads, a few at a time, patient where it is throttled."""

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from allocator.fleet.refusals import CloudRefused
from allocator.tasks import to_its_end

T = TypeVar("T")

AT_ONCE = 8
RUNNING = ("pending", "running")
GONE = ("shutting-down", "terminated")
NOT_THERE = ("NoSuchEntity", "ResourceNotFoundException", "NoSuchResourceException")
FLEET, HOSTNAME = "lablink", "lablink-hostname"
"""The tags of every machine of a fleet."""


@dataclass(frozen=True, slots=True)
class Instance:
    """An EC2 instance; `fleet` and `hostname` are empty where it has no such tag."""

    id: str
    fleet: str
    hostname: str
    state: str
    kind: str

    @property
    def is_gone(self) -> bool:
        """Whether it is ended for good."""
        return self.state in GONE

    @property
    def is_running(self) -> bool:
        """Whether it is there, or about to be."""
        return self.state in RUNNING


@dataclass(frozen=True, slots=True)
class Patience:
    """How often AWS is asked, with growing pauses where it is busy; the limits of each try and of all, in seconds."""

    attempts: int
    each: float
    in_all: float


LONG = Patience(attempts=8, each=30, in_all=300)
"""For work on many machines, which somebody would have to say again."""
SHORT = Patience(attempts=3, each=4, in_all=10)
"""For a machine that waits to be let in, and asks again by itself."""


class Cloud:
    """One region of AWS. Credentials are boto3's own business. Every method raises CloudRefused."""

    def __init__(self, region: str, patience: Patience = LONG) -> None:
        self._region = region
        self._patience = patience
        self._threads = ThreadPoolExecutor(AT_ONCE)  # of its own: where AWS hangs, nobody else has to wait
        self._clients: dict[str, Any] = {}
        self._making = threading.Lock()

    async def instances(self, fleet: str) -> list[Instance]:
        """Every instance of that fleet, those that ended within the last hour among them."""
        return [_instance(each) for each in await self._instances(f"tag:{FLEET}", [fleet])]

    async def instance(self, name: str) -> Instance | None:
        """The instance of that id, whoever's it is, if it is there."""
        found = await self._instances("instance-id", [name])
        return _instance(found[0]) if found else None

    async def console(self, instance: str) -> str:
        """What it wrote to its console, as far as EC2 has it."""
        answer = await self._ask("ec2", lambda ec2: ec2.get_console_output(InstanceId=instance))
        return str(answer.get("Output", ""))

    async def running_types(self) -> list[str]:
        """The type of every instance of this account that runs in the region, whoever's it is."""
        found = await self._instances("instance-state-name", RUNNING)
        return [str(each["InstanceType"]) for each in found if each.get("InstanceLifecycle") != "spot"]

    async def put_secret(self, name: str, value: str) -> None:
        """Make that the content of a secret that is there."""
        await self._ask(
            "secretsmanager", lambda manager: manager.put_secret_value(SecretId=name, SecretString=value), changes=True
        )

    async def reboot(self, instance: str) -> None:
        """Reboot it; after four minutes EC2 does it the hard way."""
        await self._ask("ec2", lambda ec2: ec2.reboot_instances(InstanceIds=[instance]))

    async def terminate(self, instances: Iterable[str]) -> None:
        """End them for good."""
        ids = list(instances)
        if ids:
            await self._ask("ec2", lambda ec2: ec2.terminate_instances(InstanceIds=ids))

    async def processors(self, kinds: Iterable[str]) -> dict[str, int]:
        """How many virtual processors each of these types has; of a type that is not known, none."""
        wanted = [{"Name": "instance-type", "Values": sorted(set(kinds))}]

        def listed(ec2: Any) -> dict[str, int]:
            pages = ec2.get_paginator("describe_instance_types").paginate(Filters=wanted)
            found = [each for page in pages for each in page["InstanceTypes"]]
            return {str(each["InstanceType"]): each["VCpuInfo"]["DefaultVCpus"] for each in found}

        return await self._ask("ec2", listed) if wanted[0]["Values"] else {}

    async def quota(self, code: str) -> float | None:
        """The account's limit of that code; None where AWS does not say."""
        answer = await self._found("service-quotas", lambda q: q.get_service_quota(ServiceCode="ec2", QuotaCode=code))
        return float(answer["Quota"]["Value"]) if answer else None

    async def role(self, name: str) -> str | None:
        """The name of that role, if it is there."""
        return name if await self._found("iam", lambda iam: iam.get_role(RoleName=name)) else None

    async def profile(self, name: str) -> str | None:
        """The name of that instance profile, if it is there."""
        found = await self._found("iam", lambda iam: iam.get_instance_profile(InstanceProfileName=name))
        return name if found else None

    async def secret(self, name: str) -> str | None:
        """The ARN of that secret, if it is there."""
        found = await self._found("secretsmanager", lambda manager: manager.describe_secret(SecretId=name))
        return None if found is None or "DeletedDate" in found else str(found["ARN"])

    async def remove_identity(self, role: str, secret: str) -> None:
        """Remove a machine's role, profile (of the same name) and secret; what is not there is none to remove."""
        steps: tuple[Callable[[Any], object], ...] = (
            lambda iam: iam.remove_role_from_instance_profile(InstanceProfileName=role, RoleName=role),
            lambda iam: iam.delete_instance_profile(InstanceProfileName=role),
            lambda iam: iam.delete_role_policy(RoleName=role, PolicyName="join"),
            lambda iam: iam.delete_role(RoleName=role),
        )
        for step in steps:
            await self._found("iam", step, changes=True)
        await self._found(
            "secretsmanager",
            lambda manager: manager.delete_secret(SecretId=secret, ForceDeleteWithoutRecovery=True),
            changes=True,
        )

    async def _instances(self, filtered_by: str, values: Iterable[str]) -> list[Mapping[str, Any]]:
        filters = [{"Name": filtered_by, "Values": list(values)}]

        def listed(ec2: Any) -> list[Mapping[str, Any]]:
            pages = ec2.get_paginator("describe_instances").paginate(Filters=filters)
            return [each for page in pages for group in page["Reservations"] for each in group["Instances"]]

        return await self._ask("ec2", listed)

    async def _found(self, service: str, question: Callable[[Any], T], *, changes: bool = False) -> T | None:
        """The answer, or None where what is asked for is not there."""
        try:
            return await self._ask(service, question, changes=changes)
        except CloudRefused as refused:
            if refused.code in NOT_THERE:
                return None
            raise

    async def _ask(self, service: str, question: Callable[[Any], T], *, changes: bool = False) -> T:
        """The answer. What `changes` something and is given up has ended, or never begins: it does not come later."""
        from botocore.exceptions import BotoCoreError, ClientError

        asked = self._threads.submit(lambda: question(self._client(service)))
        try:
            async with asyncio.timeout(self._patience.in_all):
                return await asyncio.wrap_future(asked)
        except ClientError as error:
            raise CloudRefused(str(error), error.response["Error"]["Code"]) from error
        except BotoCoreError as error:
            raise CloudRefused(str(error), type(error).__name__) from error
        except TimeoutError as error:
            raise CloudRefused(f"no answer within {self._patience.in_all:g} s", "Timeout") from error
        finally:
            if changes and not (asked.done() or asked.cancel()):
                await to_its_end(_over(asked))

    def _client(self, service: str) -> Any:
        """A client of one service. It is made once, and by one thread; then threads may share it."""
        with self._making:
            if service not in self._clients:
                self._clients[service] = self._made(service)
            return self._clients[service]

    def _made(self, service: str) -> Any:
        """It takes a second to import, and who has no machines in the cloud needs none."""
        import boto3
        from botocore.config import Config

        limits = Config(
            region_name=self._region,
            retries={"mode": "standard", "total_max_attempts": self._patience.attempts},
            connect_timeout=self._patience.each,
            read_timeout=self._patience.each,
            max_pool_connections=AT_ONCE,
        )
        return boto3.Session().client(service, config=limits)  # type: ignore[call-overload]


async def _over(asked: Future[Any]) -> None:
    await asyncio.gather(asyncio.wrap_future(asked), return_exceptions=True)


def _instance(told: Mapping[str, Any]) -> Instance:
    tags = {tag["Key"]: tag["Value"] for tag in told.get("Tags", [])}
    return Instance(
        id=str(told["InstanceId"]),
        fleet=tags.get(FLEET, ""),
        hostname=tags.get(HOSTNAME, ""),
        state=told["State"]["Name"],
        kind=str(told["InstanceType"]),
    )

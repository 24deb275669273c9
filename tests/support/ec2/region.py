"""The machines behind moto's words: an instance that it says runs is switched on, one that is gone is switched off."""

import base64
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from tests.support.cloud import Aws
from tests.support.ec2.instance import Instance, Surroundings, switched_on
from tests.support.metadata import MetadataService

LOOK_EVERY = 0.3


@dataclass(slots=True)
class Region:
    """All instances; looked after in a thread of its own, with which they die."""

    aws: Aws
    around: Surroundings
    _ec2: Any = field(init=False)
    _running: dict[str, tuple[Instance, ExitStack]] = field(default_factory=dict)
    _closed: threading.Event = field(default_factory=threading.Event)
    _trouble: Exception | None = None

    def __post_init__(self) -> None:
        self._ec2 = self.aws.client("ec2")

    @contextmanager
    def open(self) -> Iterator[Self]:
        """The region, looked after for the time of the block; everything is switched off at its end."""
        thread = threading.Thread(target=self._look_after)
        thread.start()
        try:
            yield self
        finally:
            self._closed.set()
            thread.join()
        self.check()

    def check(self) -> None:
        """Raises what went wrong with a machine."""
        if self._trouble:
            raise self._trouble

    def instance(self, hostname: str) -> Instance:
        """The instance that Terraform made for that name, and that runs. Raises KeyError."""
        self.check()
        return self._running[self.aws.instances()[hostname]][0]

    @property
    def running(self) -> set[str]:
        """Which instances are switched on."""
        return set(self._running)

    def told(self) -> str:
        """What every instance that is switched on has to say."""
        return "\n".join(instance.told() for instance, _ in list(self._running.values()))

    def _look_after(self) -> None:
        try:
            while not self._closed.wait(LOOK_EVERY):
                self._look()
        except Exception as trouble:  # noqa: BLE001  # the outermost loop: the test is told
            self._trouble = trouble
        finally:
            for instance in list(self._running):
                self._switch_off(instance)

    def _look(self) -> None:
        filters = [{"Name": "instance-state-name", "Values": ["running"]}]
        groups = self._ec2.describe_instances(Filters=filters)["Reservations"]
        made = {each["InstanceId"]: each for group in groups for each in group["Instances"]}
        for instance in self.running - made.keys():
            self._switch_off(instance)
        for instance in made.keys() - self.running:
            if "IamInstanceProfile" in made[instance]:  # moto gives it that a little later
                self._switch_on(made[instance])

    def _switch_on(self, made: dict[str, Any]) -> None:
        opened = ExitStack()
        instance = opened.enter_context(switched_on(self.around, self._known_of(made)))
        self._running[instance.id] = instance, opened

    def _switch_off(self, instance: str) -> None:
        self._running.pop(instance)[1].close()

    def _known_of(self, made: dict[str, Any]) -> MetadataService:
        """What its metadata service says, as EC2 knows it."""
        instance = made["InstanceId"]
        given = self._ec2.describe_instance_attribute(InstanceId=instance, Attribute="userData")["UserData"]["Value"]
        role = made["IamInstanceProfile"]["Arn"].rpartition("/")[2]
        known = MetadataService(self.around.signer, role=role, user_data=base64.b64decode(given))
        known.describe(instance, pendingTime=made["LaunchTime"].strftime("%Y-%m-%dT%H:%M:%SZ"))
        return known

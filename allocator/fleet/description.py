"""What the machines of a fleet have in common, as the platform wrote it down, and where Terraform works on them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from allocator import config
from allocator.fleet.cloud import Cloud
from allocator.fleet.refusals import NoFleet
from allocator.fleet.terraform import Terraform

NONE = """No machines in the cloud are configured. Give --set fleet=aws, and with fleet.settings the file that the \
platform wrote for its allocator: see docs/operations.md."""
WRITE = "It holds the platform's outputs fleet_backend and fleet_settings: see docs/operations.md."


class _Defaults(BaseModel):
    ami_id: str
    instance_type: str = "t3.large"


class _Settings(BaseModel):
    """The part of it that concerns us; Terraform checks all of it."""

    model_config = ConfigDict(extra="allow")

    name: str
    defaults: _Defaults


class _Variables(BaseModel):
    region: str
    settings: _Settings


class _File(BaseModel):
    backend: dict[str, str]
    variables: _Variables


@dataclass(frozen=True, slots=True)
class Fleet:
    """One fleet: its name, what it is made with, and what it is made of."""

    name: str
    default_type: str
    region: str
    common: dict[str, Any]
    """Terraform's variables but for the machines."""
    backend: dict[str, str]
    root: Path
    work: Path
    cloud: Cloud

    @classmethod
    def of(cls, fleet: config.Fleet) -> Self:
        """The fleet that is configured. Raises NoFleet."""
        if fleet.settings is None:
            raise NoFleet(NONE)
        try:
            text = fleet.settings.read_text()
            told = _File.model_validate_json(text)
        except OSError as error:
            raise NoFleet(f"{fleet.settings} cannot be read ({error.strerror}). {WRITE}") from error
        except ValidationError as error:
            raise NoFleet(f"{fleet.settings} is not what the platform wrote. {WRITE}") from error
        return cls(
            name=told.variables.settings.name,
            default_type=told.variables.settings.defaults.instance_type,
            region=told.variables.region,
            common=json.loads(text)["variables"],
            backend=told.backend,
            root=fleet.root or root_directory(),
            work=fleet.work.absolute(),
            cloud=Cloud(told.variables.region),
        )

    def terraform(self) -> Terraform:
        """Terraform at work on it."""
        return Terraform(self.root, self.work)

    def variables(self, vms: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """What Terraform is told: these machines, and what they have in common."""
        return self.common | {"vms": vms}

    def role_of(self, hostname: str) -> str:
        """The name of a machine's role and of its instance profile."""
        return f"{self.name}-vm-{hostname}"

    def secret_of(self, hostname: str) -> str:
        """The name of the secret that its join token is put into."""
        return f"{self.name}/join/{hostname}"


def root_directory() -> Path:
    """Terraform's root for machines: beside this package in an installed wheel, at the top of a checkout."""
    here = Path(__file__).parents[1]
    places = (here / "terraform" / "fleet", here.parent / "terraform" / "fleet")
    return next((place for place in places if (place / "main.tf").is_file()), places[0])

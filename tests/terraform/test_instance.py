"""The containers of the allocator's instance, as compose reads what it is given: those of docker/, elsewhere."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.images.engine import compose, run
from tests.support.terraform import CHECKOUT
from tests.terraform.templates import evaluated, rendered

DOCKER = CHECKOUT / "docker"
GIVEN: dict[str, Any] = {
    "images": {"allocator": "registry/lablink-allocator-aws:1", "postgres": "registry/postgres:17", "proxy": "caddy:2"},
    "container": True,
    "certificate": False,
    "database": {"host": "lablink.example.org", "port": 5432},
    "region": "eu-central-1",
}
WHERE = {"image", "networks", "network_mode", "volumes"}
"""What may be another on an instance than on a host with machines."""
STARTS = {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}
RIGHTS = {"postgres": STARTS, "proxy": {"NET_BIND_SERVICE"}, "vm": STARTS | {"KILL"}}
"""What is root, and the rights of root's that it has; nothing else has any."""


def services(directory: Path) -> dict[str, dict[str, Any]]:
    """What compose would run there."""
    read: dict[str, dict[str, Any]] = yaml.safe_load(run(*compose(), "config", cwd=directory))["services"]
    return read


@pytest.fixture
def instance(request: pytest.FixtureRequest, tmp_path: Path, terraform_environment: dict[str, str]) -> Any:
    """The services of an instance; a test may say how it differs from GIVEN."""
    template = rendered("allocator/compose.yaml.tftpl", GIVEN | getattr(request, "param", {}))
    (tmp_path / "compose.yaml").write_text(evaluated(template, tmp_path, terraform_environment))
    shutil.copy(DOCKER / "services.yaml", tmp_path)
    return services(tmp_path)


def test_an_instance_runs_the_postgresql_of_docker_and_only_its_place_differs(instance: Any) -> None:
    one_host = services(DOCKER)["postgres"]
    mine = instance["postgres"]

    assert {key for key in one_host | mine if one_host.get(key) != mine.get(key)} <= WHERE
    assert [each["target"] if isinstance(each, dict) else each.split(":")[1] for each in mine["volumes"]] == [
        "/etc/postgresql",
        "/var/lib/postgresql/data",
    ]


def test_an_instance_s_allocator_can_as_little_as_that_of_docker(instance: Any) -> None:
    one_host, mine = services(DOCKER)["allocator"], instance["allocator"]

    for key in ("cap_drop", "read_only", "restart", "security_opt", "tmpfs", "user"):
        assert mine[key] == one_host[key]
    assert mine["image"] == GIVEN["images"]["allocator"]


def test_nothing_can_gain_a_right_and_what_is_root_has_the_fewest(instance: Any) -> None:
    ours = {name: each for name, each in services(DOCKER).items() if "profiles" not in each}

    for name, service in (ours | instance).items():
        assert service["cap_drop"] == ["ALL"], name
        assert set(service.get("cap_add", ())) == RIGHTS.get(name.partition("-")[0], set()), name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_everything_on_an_instance_is_on_its_own_network(instance: Any) -> None:
    assert set(instance) == {"allocator", "postgres", "proxy"}
    assert {service["network_mode"] for service in instance.values()} == {"host"}
    assert [name for name, service in instance.items() if "ports" in service] == []


@pytest.mark.parametrize("instance", [{"container": False, "certificate": True}], indirect=True)
def test_with_rds_there_is_no_postgresql(instance: Any) -> None:
    assert set(instance) == {"allocator", "proxy"}
    assert "extra_hosts" not in instance["allocator"]

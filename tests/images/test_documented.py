"""What docs/containers.md has people write into compose.override.yaml is what compose takes."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.images.engine import compose, run
from tests.images.stack import DOCKER, copied

GUIDE = (DOCKER.parent / "docs/containers.md").read_text()
BLOCKS: list[str] = re.findall(r"^```yaml\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


def config(directory: Path, *options: str) -> dict[str, Any]:
    """All that compose would run there."""
    read: dict[str, Any] = yaml.safe_load(run(*compose(), *options, "config", cwd=directory))
    return read


def members(services: dict[str, Any], network: str) -> set[str]:
    """Who is in a network."""
    return {name for name, service in services.items() if network in (service.get("networks") or {})}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: " ".join(re.findall(r"^  ([\w-]+):$", block, re.MULTILINE)))
def test_what_the_guide_adds_to_compose_is_added(block: str, tmp_path: Path) -> None:
    directory = copied(tmp_path / "docker")
    before = config(directory)
    (directory / "compose.override.yaml").write_text(block)

    after = config(directory)

    added = yaml.safe_load(block)
    assert after["services"].keys() == before["services"].keys() | added["services"].keys()
    assert all(after["services"][name] != before["services"].get(name) for name in added["services"])


def test_a_fourth_machine_is_what_the_other_three_are(tmp_path: Path) -> None:
    directory = copied(tmp_path / "docker")
    [block] = [each for each in BLOCKS if "vm-4" in each]
    (directory / "compose.override.yaml").write_text(block)

    machines = config(directory)["services"]

    own = {"hostname", "networks", "volumes"}
    assert machines["vm-4"].keys() == machines["vm-3"].keys()
    assert {key for key in machines["vm-4"] if machines["vm-4"][key] != machines["vm-3"][key]} == own
    for number in "1234":
        assert members(machines, f"direct-{number}") == {f"vm-{number}", "allocator", "postgres"}


def test_a_machine_that_speaks_over_the_hub_is_in_no_network_of_postgresql(tmp_path: Path) -> None:
    directory = copied(tmp_path / "docker")
    [block] = [each for each in BLOCKS if "vm-4" in each]
    (directory / "compose.override.yaml").write_text(block)
    (directory / ".env").write_text("LABLINK_TRANSPORT=hub\n")

    services = config(directory)["services"]

    for number in "1234":
        assert services[f"vm-{number}"]["networks"].keys() == {f"hub-{number}"}
        assert members(services, f"hub-{number}") == {f"vm-{number}", "allocator"}


def test_pgadmin_is_started_on_demand_and_out_of_the_machines_reach(tmp_path: Path) -> None:
    services = config(copied(tmp_path / "docker"), "--profile", "admin")["services"]

    assert services["pgadmin"]["profiles"] == ["admin"]
    assert services["pgadmin"]["networks"].keys() == {"admin"}
    assert members(services, "admin") == {"pgadmin", "postgres"}

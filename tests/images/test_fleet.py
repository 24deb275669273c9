"""The image for AWS, as the allocator's instance has it: Terraform and its provider are in it, no registry is asked."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.images.engine import AWS, require_images, run
from tests.support.admin import place
from tests.support.cloud import Aws, fresh, moto_server
from tests.support.database import PASSWORDS, Database

pytestmark = pytest.mark.timeout(1200)

NOBODY = {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
"""Whoever goes further than this machine finds nobody."""
FETCHED = (Path(__file__).parents[2] / "docker/terraform").read_text()
SAFE = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges:true")


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Aws]:
    settings = tmp_path / "lablink"  # the allocator is nobody, and may read this
    settings.mkdir(0o755)
    with moto_server() as url:
        yield fresh(url, settings)


@pytest.fixture
def allocator(database: Database, aws: Aws) -> Iterator[str]:
    """The id of a container in which an admin types, with its settings where an instance has them."""
    require_images()
    settings = ["fleet=aws", *(each.removeprefix("--set=") for each in place(database.dsn("lablink")))]
    (aws.settings.parent / "overrides").write_text("\n".join([*settings, ""]))
    given = aws.environment | NOBODY | {"OWNER": PASSWORDS["lablink"], "SERVICE": PASSWORDS["lablink_app"]}
    mounts = (f"--volume={aws.settings.parent}:/etc/lablink:ro", "--volume=/var/lib/lablink")
    names = [f"--env={name}" for name in given]
    run_it = ("docker", "run", "--detach", "--rm", "--network=host", *SAFE, *mounts, *names, "--entrypoint=sleep")
    container = run(*run_it, AWS, "infinity", env=os.environ | given).strip()
    yield container
    run("docker", "kill", container)


def typed(container: str, *words: str) -> Any:
    """What a command answers there."""
    return json.loads(run("docker", "exec", container, *words))


async def test_the_image_plans_machines_and_asks_no_registry(allocator: str, database: Database) -> None:
    owner = await database.connect("lablink")
    await owner.execute("INSERT INTO fleet_vms (hostname) VALUES ('vm-1')")

    planned = await asyncio.to_thread(typed, allocator, "lablink", "fleet", "plan", "--json")

    assert planned["make"] == ["vm-1"]
    assert typed(allocator, "terraform", "version", "-json")["terraform_version"] in FETCHED

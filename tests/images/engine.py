"""Docker's engine and compose, as an admin types them."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

POSTGRES = "lablink-test-postgres"
AWS = "lablink-allocator-aws"
IMAGES = ("lablink-allocator", AWS, "lablink-client", POSTGRES)
LIMIT_SECONDS = 600


class Failed(Exception):
    """A command ended badly; the message is what it said."""


def run(*arguments: str | Path, **options: Any) -> str:
    """What a command prints. Raises Failed."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        arguments, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False, **options
    )
    if done.returncode != 0:
        raise Failed(f"{arguments}: {done.stdout}{done.stderr}")
    return done.stdout


def compose() -> list[str]:
    """The compose there is here: the engine's plugin, or the program of its own that Debian 12 has."""
    if _works("docker", "compose", "version"):
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    pytest.skip("there is no compose here (Debian 12: apt install docker-compose)")


def require_images() -> None:
    """Skip the test where there is no engine, or no images to try."""
    if not _works("docker", "info"):
        pytest.skip("no Docker engine answers here (.ci/images starts one, as root)")
    missing = [image for image in IMAGES if not _works("docker", "image", "inspect", image)]
    if missing:
        pytest.skip(f"there is no image {missing[0]} here (.ci/images builds all of them)")


def inspected(container: str) -> dict[str, Any]:
    """What the engine knows of a container."""
    found: list[dict[str, Any]] = json.loads(run("docker", "inspect", container))
    return found[0]


def _works(*command: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, timeout=LIMIT_SECONDS, check=False).returncode == 0

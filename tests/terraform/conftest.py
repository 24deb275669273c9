"""The real terraform, with the AWS provider from this machine where it has one, else from Terraform's registry."""

import os
import shutil
from pathlib import Path

import pytest

from tests.support.terraform import CHECKOUT, environment_in

ROOT = CHECKOUT / "terraform"

MISSING = """There is no terraform on this machine, so nothing under tests/terraform is tested. Install 1.11 or newer: \
https://developer.hashicorp.com/terraform/install"""


@pytest.fixture(scope="session", autouse=True)
def terraform_is_here() -> None:
    """In CI its absence is a failure; elsewhere it is said."""
    if shutil.which("terraform") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(MISSING)


@pytest.fixture(scope="session")
def terraform_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which terraform finds its provider and leaves nothing in the checkout."""
    return environment_in(tmp_path_factory.mktemp("terraform"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """All of it, where terraform may leave what it likes."""
    left = shutil.ignore_patterns(".terraform", ".terraform.lock.hcl")
    shutil.copytree(CHECKOUT / "docker", tmp_path / "docker", ignore=shutil.ignore_patterns("secrets"))
    return shutil.copytree(ROOT, tmp_path / "terraform", ignore=left)

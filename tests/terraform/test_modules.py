"""Every Terraform module is in format, valid, and keeps what its own tests say, against a mock of AWS."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.terraform.conftest import ROOT

MODULES = sorted(path.parent for path in ROOT.rglob("versions.tf") if ".terraform" not in path.parts)


def _terraform(directory: Path, environment: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        ["terraform", *words, "-no-color"], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_everything_is_in_format(terraform_environment: dict[str, str]) -> None:
    _terraform(ROOT, terraform_environment, "fmt", "-check", "-recursive", "-diff")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("module", [str(path.relative_to(ROOT)) for path in MODULES])
def test_a_module_keeps_what_its_tests_say(module: str, tmp_path: Path, terraform_environment: dict[str, str]) -> None:
    shutil.copytree(ROOT, tmp_path / "terraform", ignore=shutil.ignore_patterns(".terraform", ".terraform.lock.hcl"))
    directory = tmp_path / "terraform" / module
    _terraform(directory, terraform_environment, "init", "-backend=false")
    _terraform(directory, terraform_environment, "validate")
    assert "0 failed" in _terraform(directory, terraform_environment, "test")


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_has_tests_and_the_four_files(module: Path) -> None:
    assert {path.name for path in module.glob("*.tf")} >= {"main.tf", "outputs.tf", "variables.tf", "versions.tf"}
    assert list(module.glob("tests/*.tftest.hcl"))

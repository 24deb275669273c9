"""Every Terraform module is in format, and keeps what its own tests say, against a mock of AWS."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.terraform import running_provider
from tests.terraform.conftest import ROOT
from tests.terraform.readme import modules, readme

pytestmark = pytest.mark.timeout(900)

MODULES = modules()
EXAMPLES = sorted(path.stem for path in ROOT.glob("examples/*.tfvars"))


@pytest.fixture(scope="session")
def attached(
    terraform_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The environment for many small runs, none of which configures the provider."""
    with running_provider(tmp_path_factory.mktemp("provider"), terraform_environment) as environment:
        yield environment


def terraform(directory: Path, environment: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        ["terraform", *words, "-no-color"], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_everything_is_in_format(terraform_environment: dict[str, str]) -> None:
    terraform(ROOT, terraform_environment, "fmt", "-check", "-recursive", "-diff")


@pytest.mark.parametrize("module", [str(path.relative_to(ROOT)) for path in MODULES])
def test_a_module_keeps_what_its_tests_say(module: str, copy: Path, attached: dict[str, str]) -> None:
    terraform(copy / module, attached, "init", "-backend=false")
    assert re.search(r"[1-9]\d* passed, 0 failed", terraform(copy / module, attached, "test"))


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_becomes_what_it_says(example: str, copy: Path, attached: dict[str, str]) -> None:
    tests = "-test-directory=examples/tests"
    terraform(copy, attached, "init", "-backend=false", tests)
    only, given = f"-filter=examples/tests/{example}.tftest.hcl", f"-var-file=examples/{example}.tfvars"
    assert re.search(r"[1-9] passed, 0 failed", terraform(copy, attached, "test", tests, only, given))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_s_readme_has_its_variables_and_outputs(module: Path) -> None:
    assert (module / "README.md").read_text() == readme(module), "make format writes it"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_has_tests_and_the_four_files(module: Path) -> None:
    assert {path.name for path in module.glob("*.tf")} >= {"main.tf", "outputs.tf", "variables.tf", "versions.tf"}
    assert list(module.glob("tests/*.tftest.hcl"))

"""The real terraform, with the AWS provider from this machine where it has one, else from Terraform's registry."""

import os
import subprocess
from pathlib import Path

import pytest

PROVIDER = "*/hashicorp/aws"
ROOT = Path(__file__).parents[2] / "terraform"


def _mirror() -> Path | None:
    """The folder that `terraform providers mirror` or an image made, if there is one on this machine."""
    search = ["find", "/", "-xdev", "-type", "d", "-path", PROVIDER, "-not", "-path", "*/.terraform/*", "-prune"]
    found = subprocess.run(search, capture_output=True, text=True, check=False).stdout.splitlines()
    return Path(found[0]).parents[2] if found else None


@pytest.fixture(scope="session")
def terraform_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which terraform finds its provider and leaves nothing in the checkout."""
    directory = tmp_path_factory.mktemp("terraform")
    settings = directory / "terraform.rc"
    mirror = _mirror()
    settings.write_text(
        f'provider_installation {{\n  filesystem_mirror {{ path = "{mirror}" }}\n}}\n' if mirror else ""
    )
    return os.environ | {"TF_CLI_CONFIG_FILE": str(settings), "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}

"""How tests find terraform and its provider."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
ATTACH = "TF_REATTACH_PROVIDERS"


def environment_in(directory: Path) -> dict[str, str]:
    """The environment in which terraform finds its provider and leaves nothing in the checkout.

    It takes the provider from this machine where it has one, else from Terraform's registry.
    """
    settings = directory / "terraform.rc"
    told = subprocess.run([CHECKOUT / ".ci/terraform-settings"], capture_output=True, text=True, check=True)
    settings.write_text(told.stdout)
    return os.environ | {"TF_CLI_CONFIG_FILE": str(settings), "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}


@contextmanager
def running_provider(directory: Path, environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """The environment in which every terraform asks one provider that runs already, instead of starting its own.

    To start it takes a second, and a terraform with twenty tests starts it twenty times. It has one configuration at a
    time, so that it is for one terraform at a time, or for such as configure none.
    https://developer.hashicorp.com/terraform/plugin/debugging#starting-a-provider-in-debug-mode
    """
    program = _installed(directory, environment)
    quiet = {**environment, "TF_LOG_SDK": "off"}
    with subprocess.Popen(
        [program, "-debug"], env=quiet, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as provider:
        assert provider.stdout
        try:
            line = next(line.strip() for line in provider.stdout if line.strip().startswith(f"{ATTACH}="))
            yield dict(environment) | {ATTACH: line.removeprefix(f"{ATTACH}=").strip("'")}
        finally:
            provider.kill()


def _installed(directory: Path, environment: Mapping[str, str]) -> Path:
    """The provider's program, as terraform installs it."""
    versions = CHECKOUT / "terraform/modules/network/versions.tf"
    (directory / versions.name).write_text(versions.read_text())
    subprocess.run(["terraform", "init"], cwd=directory, env=environment, stdout=subprocess.DEVNULL, check=True)
    return next(directory.glob(".terraform/providers/*/*/*/*/*/terraform-provider-aws*"))

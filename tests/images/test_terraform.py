"""docker/terraform on a machine that has neither Terraform nor its provider: HashiCorp's releases, as published."""

import hashlib
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.images.stack import DOCKER

SCRIPT = DOCKER / "terraform"
PLATFORM = {"x86_64": "linux_amd64", "aarch64": "linux_arm64"}[platform.machine()]
CURL = """#!/bin/sh
for url; do :; done
until [ "$1" = --output ]; do shift; done
cp "$RELEASES/${url##*/}" "$2"
"""
ELSEWHERE = {"find": "#!/bin/sh\n", "terraform": "#!/bin/sh\nexit 1\n", "curl": CURL}
"""A machine that has neither, for which a directory is HashiCorp's site."""


def version(what: str) -> str:
    """The version that the script fetches."""
    [found] = re.findall(rf"\b{what}=(\d+\.\d+\.\d+)", SCRIPT.read_text())
    return str(found)


def publish(releases: Path, product: str, number: str, program: str) -> None:
    """Put a release there: an archive with a program, and its checksum."""
    archive = releases / f"{product}_{number}_{PLATFORM}.zip"
    with ZipFile(archive, "w") as opened:
        opened.writestr(program, "the program")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    (releases / f"{product}_{number}_SHA256SUMS").write_text(f"{'0' * 64}  other.zip\n{digest}  {archive.name}\n")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout on a machine that has to fetch both, beside the site that it fetches them from."""
    programs, releases, checkout = (tmp_path / name for name in ("programs", "releases", "checkout"))
    for each in (programs, releases, checkout / "docker"):
        each.mkdir(parents=True)
    for name, script in ELSEWHERE.items():
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    shutil.copy(SCRIPT, checkout / "docker")
    publish(releases, "terraform", version("terraform"), "terraform")
    publish(releases, "terraform-provider-aws", version("provider"), "terraform-provider-aws_v1_x5")
    return checkout


def fetch(checkout: Path) -> subprocess.CompletedProcess[str]:
    path = f"{checkout.parent}/programs:/usr/bin:/bin"
    given = os.environ | {"PATH": path, "RELEASES": str(checkout.parent / "releases")}
    return subprocess.run([checkout / "docker/terraform"], env=given, capture_output=True, text=True, check=False)


def fetched(checkout: Path) -> dict[str, int]:
    """What is in build/terraform, each with its permissions."""
    place = checkout / "build/terraform"
    return {str(file.relative_to(place)): file.stat().st_mode & 0o777 for file in place.rglob("*") if file.is_file()}


def test_what_a_machine_does_not_have_is_fetched(checkout: Path) -> None:
    done = fetch(checkout)

    assert done.returncode == 0, done.stderr
    mirror = f"share/terraform/plugins/registry.terraform.io/hashicorp/aws/{version('provider')}/{PLATFORM}"
    assert fetched(checkout) == {"bin/terraform": 0o755, f"{mirror}/terraform-provider-aws_v1_x5": 0o755}


@pytest.mark.parametrize("product", ["terraform", "terraform-provider-aws"])
def test_what_is_not_as_published_is_not_taken(checkout: Path, product: str) -> None:
    [archive] = (checkout.parent / "releases").glob(f"{product}_[0-9]*.zip")
    with ZipFile(archive, "a") as opened:
        opened.writestr("more", "by somebody else")

    done = fetch(checkout)

    assert done.returncode != 0
    assert f"{archive.name}: FAILED" in done.stdout + done.stderr
    assert fetched(checkout) == {}
    assert [path.name for path in (checkout / "build").iterdir()] == []

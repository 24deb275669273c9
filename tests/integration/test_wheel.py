"""The wheel: all that an image or a machine has of LabLink."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

CHECKOUT = Path(__file__).parents[2]
PARTS = ("allocator", "client", "conf", "terraform")
KEPT_BESIDE_IT = ("terraform.tfstate", "lab.tfvars", "fleet/.terraform/environment", "fleet/terraform.tfstate")
WHERE = "from allocator.fleet.description import root_directory; print(root_directory())"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is in a wheel that somebody built where they had applied the platform, too."""
    source, unpacked = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        shutil.copytree(CHECKOUT / part, source / part, ignore=shutil.ignore_patterns(".terraform*", "__pycache__"))
    for file in ("pyproject.toml", "README.md"):
        shutil.copy(CHECKOUT / file, source)
    for name in KEPT_BESIDE_IT:
        (source / "terraform" / name).parent.mkdir(exist_ok=True)
        (source / "terraform" / name).write_text("theirs")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", source], cwd=source, check=True)
    [wheel] = source.glob("*.whl")
    ZipFile(wheel).extractall(unpacked)
    return unpacked


def test_the_wheel_has_what_the_allocator_applies_where_it_looks_for_it(unpacked: Path) -> None:
    asked = [sys.executable, "-c", WHERE]
    told = subprocess.run(
        asked, env=os.environ | {"PYTHONPATH": str(unpacked)}, cwd=unpacked, capture_output=True, text=True, check=True
    )

    root = Path(told.stdout.strip())
    assert root == unpacked / "allocator/terraform/fleet"
    for part in (root, root.parent / "modules/fleet"):
        own = CHECKOUT / "terraform" / part.relative_to(root.parent)
        applied = {file.name for file in own.iterdir() if file.suffix in (".tf", ".tftpl")}
        assert {file.name for file in part.iterdir()} == applied


def test_the_wheel_has_nothing_else_of_terraform(unpacked: Path) -> None:
    assert {path.name for path in (unpacked / "allocator/terraform").iterdir()} == {"fleet", "modules"}
    assert [path.name for path in (unpacked / "allocator/terraform/modules").iterdir()] == ["fleet"]

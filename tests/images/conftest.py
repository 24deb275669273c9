"""One stack for all tests of this directory."""

from collections.abc import Iterator

import pytest

from tests.images.engine import require_images
from tests.images.stack import Stack, running_stack
from tests.terraform.conftest import terraform_environment

__all__ = ["terraform_environment"]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """What compose.yaml starts, with three machines available."""
    require_images()
    with running_stack(tmp_path_factory.mktemp("images") / "docker") as running:
        yield running

"""One `lablink up` for all end-to-end tests of a session; what stops or breaks things starts its own."""

from collections.abc import Iterator

import pytest

from tests.support.up import RunningUp, open_directory, running_up


@pytest.fixture(scope="session")
def up() -> Iterator[RunningUp]:
    """A `lablink up` with three machines: `.url`, `.data_dir`, `.dsn()`, `.lablink(…)`, `.json(…)`."""
    with open_directory() as directory, running_up(directory / "data") as running:
        yield running

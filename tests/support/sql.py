"""Our SQL, for tests that spoil it."""

import shutil
from pathlib import Path

import pytest

from allocator import migrations


def copied_sql(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of allocator/sql in `directory`, from which this process migrates until the test ends."""
    shutil.copytree(migrations.SQL, directory)
    monkeypatch.setattr(migrations, "SQL", directory)
    return directory

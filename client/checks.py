"""Whether this machine is fit for people: its disk, its GPU, and whatever its admin wants looked at.

A check of an admin's is a program in the checks' directory. It is well with exit code 0; otherwise the last line that
it printed says why not.
"""

import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from client.processes import signal_group

LIMIT_SECONDS = 20.0

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OTHERS = "others than root can change it, so it is not run"
_GPU = ("--query-gpu=name", "--format=csv,noheader")
# Its exit code is printed and not waited for: the parent of adopted orphans may have let go of it by then.
_TELLING = '"$@" 2>&1; printf "\\n%s" "$?"'


@dataclass(frozen=True, slots=True)
class Checks:
    """The checks of one machine. `place` is on the disk that must have room: a twentieth of it, if that is less."""

    place: Path
    directory: Path
    least_free_mb: int
    limit_seconds: float = LIMIT_SECONDS
    path: str = PATH

    def trouble(self, *, lent: bool) -> str | None:
        """What is wrong with the machine; None when nothing is. Takes as long as its programs do.

        While it is `lent` nobody looks at the disk: what fills it is probably the holder's, who would lose it, and fill
        the next one.
        """
        return next(filter(None, (_looked(*check) for check in self._all(lent=lent))), None)

    def _all(self, *, lent: bool) -> Iterator[tuple[str, Callable[[], str | None]]]:
        """The name of each check that there is, and what says why it fails."""
        if not lent:
            yield "disk", self._full
        if gpu := shutil.which("nvidia-smi", path=self.path):
            yield "gpu", partial(self._failing, (gpu, *_GPU))
        try:
            own = sorted(self.directory.iterdir())
        except OSError:
            return
        yield from ((each.name, partial(self._own_failing, each)) for each in own if _is_program(each))

    def _full(self) -> str | None:
        disk = shutil.disk_usage(self.place)
        if disk.free >= min(self.least_free_mb << 20, disk.total // 20):
            return None
        return f"only {disk.free >> 20} MB are free"

    def _own_failing(self, program: Path) -> str | None:
        return self._failing((str(program),)) if _is_ours(self.directory) else f"{OTHERS}: see {self.directory}"

    def _failing(self, argv: Sequence[str]) -> str | None:
        if not _is_ours(Path(argv[0])):
            return OTHERS
        said = _said(argv, self.limit_seconds, self.path)
        if said is None:
            return f"it took longer than {self.limit_seconds:g} s"
        *lines, code = said.splitlines() or [""]
        if code == "0":
            return None
        return next((line for line in reversed(lines) if line.strip()), f"exit code {code}")


def _looked(name: str, why_not: Callable[[], str | None]) -> str | None:
    """What a check says. One that the system keeps from looking is not well: it says why."""
    try:
        reason = why_not()
    except OSError as error:
        reason = error.strerror or str(error)
    return reason and f"check {name}: {reason}"


def _is_program(path: Path) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _is_ours(path: Path) -> bool:
    """Whether nobody can have changed it, or what is in it, but root and whoever runs this: it may run as root."""
    found = path.stat()
    return found.st_uid in (0, os.geteuid()) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _said(argv: Sequence[str], limit_seconds: float, path: str) -> str | None:
    """What a program printed, and its exit code in a last line; None when it did not end in time."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", _TELLING, "sh", *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={"PATH": path, "LANG": "C.UTF-8"},
        cwd="/",
        start_new_session=True,
    )
    try:
        return process.communicate(timeout=limit_seconds)[0].decode(errors="replace")
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.returncode is None:
            signal_group(process.pid, signal.SIGKILL)
        if process.stdout:
            process.stdout.close()
        process.wait()

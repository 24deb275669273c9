"""The directory that one `lablink up` works in: found, made, and claimed for one process at a time."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from allocator.local import UpFailed

NAME = ".lablink"
"""The data directory's usual name: found in the working directory or above, as Git finds its own."""

LOCK = "up.lock"
"""Locked by the `lablink up` that runs; the mark by which a data directory is known as one."""


def nearest(start: Path | None = None) -> Path | None:
    """The data directory of the checkout that we are in, if there is one.

    Somebody else's is none: what it says would be done with our rights, and all may write above us, in /tmp.
    """
    start = (start or Path.cwd()).absolute()
    return next((each / NAME for each in (start, *start.parents) if _is_ours(each / NAME)), None)


def _is_ours(directory: Path) -> bool:
    """Whether it is there and root's, our own, or that of whom sudo made root, and others cannot write into it."""
    trusted = {0, os.geteuid(), int(os.environ.get("SUDO_UID", "0")) if os.geteuid() == 0 else 0}
    try:
        link, found = directory.lstat(), directory.stat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and not found.st_mode & stat.S_IWOTH and {link.st_uid, found.st_uid} <= trusted


def made_by_up(directory: Path | None) -> bool:
    """Whether a `lablink up` made it; another one holds settings only."""
    return directory is not None and (directory / LOCK).exists()


@contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """`directory`, made if need be, for this process alone. Nothing is left behind where nothing was there or made.

    Raises UpFailed, also for a directory that holds something else.
    """
    made = not directory.exists()
    with _locked(directory) as lock:
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        try:
            yield
        finally:
            if os.listdir(directory) == [LOCK]:
                (directory / LOCK).unlink()
                if made:
                    directory.rmdir()


@contextmanager
def _locked(directory: Path) -> Iterator[TextIO]:
    with _opened(directory) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise UpFailed(
                f"{directory} is in use by another `lablink up` (process {lock.read().strip() or 'unknown'}): "
                "stop that one, or give another --data-dir."
            ) from error
        if os.fstat(lock.fileno()).st_nlink == 0:
            raise UpFailed(f"{directory} was given up by another `lablink up` at this moment: start again.")
        yield lock


def _opened(directory: Path) -> TextIO:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not (directory / LOCK).exists() and os.listdir(directory):
            raise UpFailed(
                f"{directory} holds something else than LabLink's data: give a new or an empty one as --data-dir."
            )
        return open(directory / LOCK, "a+")
    except OSError as error:
        raise UpFailed(f"{directory} cannot be used ({error.strerror}): give another --data-dir.") from error

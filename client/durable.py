"""Writes that survive a power cut: the bytes and the name they go by are on the disk before a function returns."""

import os
from pathlib import Path


def append(path: Path, data: bytes) -> None:
    """Add `data` to the end of an existing file. After an OSError the end of the file is unknown: read it again."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    _write_and_close(descriptor, data)
    sync_directory(path.parent)


def replace(path: Path, data: bytes, owner: tuple[int, int] | None = None) -> None:
    """Make `path` hold exactly `data`, readable by its owner only: a crash leaves the old content or the new.

    `owner` is a user and a group, None whoever calls. It is theirs before it has its name, by which somebody could put
    a link in its place. The bytes go to a new inode, because pages that once failed an fsync are clean to the kernel
    and lost to the disk.
    """
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    if owner is not None:
        os.fchown(descriptor, *owner)
    _write_and_close(descriptor, data)
    new.rename(path)
    sync_directory(path.parent)


def remove(path: Path) -> None:
    """Remove a file, or find it gone."""
    path.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Put the names in `directory` on the disk: an fsync of a file alone does not save its name."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_and_close(descriptor: int, data: bytes) -> None:
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Whom root becomes for PostgreSQL and for each machine, so that none of them can read what is another's."""

import os
import pwd
import secrets
import subprocess
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from allocator.local import UpFailed

SERVER_NAMES = ("postgres", "nobody")
MACHINE_IDS = range(30_000, 60_000)
"""Users for machines: Debian gives these to nobody, and a container that knows 65,536 users knows them too."""


@dataclass(frozen=True, slots=True)
class Account:
    """An unprivileged user, who need not stand in any list of users."""

    name: str
    uid: int
    gid: int

    @classmethod
    def numbered(cls, number: int) -> "Account":
        """The user and group of that number."""
        return cls(f"number {number}", number, number)


def account_of_server(data: Path | None = None) -> Account | None:
    """Whom PostgreSQL runs as when this process is root's: the owner of `data`, else `postgres` or `nobody`.

    None when this process is not root's: ourselves. Raises UpFailed. A number will not do, as initdb asks for its name.
    """
    if os.geteuid() != 0:
        return None
    if data is not None and data.exists() and data.stat().st_uid != 0:
        owner = data.stat()
        return Account(f"number {owner.st_uid}", owner.st_uid, owner.st_gid)
    for name in SERVER_NAMES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise UpFailed("PostgreSQL does not run as root, and there is no user postgres or nobody to run it: add one.")


def stranger() -> Account | None:
    """Somebody who may do only what everybody may, as machines' users are when we are root; None for ourselves."""
    return Account.numbered(MACHINE_IDS[0]) if os.geteuid() == 0 else None


def own_directory(directory: Path) -> Account | None:
    """Make `directory` for a user of its own, whom nobody else is, and return that user; None when we are not root.

    The same user at each start. One that belonged to somebody else is emptied first: links in it may lead anywhere.
    """
    if os.geteuid() != 0:
        directory.mkdir(mode=0o700, exist_ok=True)
        return None
    if directory.is_dir() and directory.stat().st_uid not in MACHINE_IDS:
        discard(directory)
    if not directory.exists():
        number = _free_id({each.lstat().st_uid for each in directory.parent.iterdir()})
        directory.mkdir(mode=0o700)
        os.chown(directory, number, number)
    return Account.numbered(directory.stat().st_uid)


def discard(directory: Path) -> None:
    """Remove a directory and whatever somebody left in it; what resists stays, under another name.

    By `rm`, which minds no depth. A name of its own comes first, so that the old one is free in any case.
    """
    gone = directory.with_name(f".{directory.name}.{secrets.token_hex(8)}")
    with suppress(FileNotFoundError):
        directory.rename(gone)
        subprocess.run(["rm", "-rf", "--", gone], stderr=subprocess.DEVNULL, check=False)


def reachable(path: Path, account: Account | None) -> bool:
    """True when `account` may walk down to `path` (None: ourselves, who may)."""
    return account is None or all(may_enter(parent, account) for parent in path.resolve().parents)


def may_enter(path: Path, account: Account) -> bool:
    """Whether `account` may enter a directory, or run a program."""
    status = path.stat()
    if status.st_uid == account.uid:
        return bool(status.st_mode & 0o100)
    if status.st_gid == account.gid:
        return bool(status.st_mode & 0o010)
    return bool(status.st_mode & 0o001)


def _free_id(taken: Collection[int]) -> int:
    """Picked at random, so that the machines of another data directory are others."""
    while (number := secrets.choice(MACHINE_IDS)) in taken or _has_name(number):
        pass
    return number


def _has_name(number: int) -> bool:
    try:
        pwd.getpwuid(number)
    except KeyError:
        return False
    return True

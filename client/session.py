"""The place on the machine that one lease gets: its HOME and working directory, and the end of all that it left."""

import asyncio
import os
import pwd
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from client.durable import sync_directory
from client.processes import Belongings, ProcessesRemain, find_remains, kill_remains
from client.system_v import remove_made_by

SHARED_DIRECTORIES = (
    *("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run/lock", "/var/crash"),  # noqa: S108  # only ever cleaned
    *("/var/spool/cron", "/var/spool/cron/crontabs", "/var/spool/cron/atjobs", "/var/spool/at"),
)
_BATCH = 1000
_ROUNDS = 5


class SessionError(Exception):
    """Base of what can go wrong with a session's place on the machine."""


class SessionNotClean(SessionError):
    """Something of an earlier lease is still there. Wipe first."""


class WipeFailed(SessionError):
    """The machine cannot be cleaned: it must not be lent again before somebody has looked at it."""


class AccountUnusable(SessionError):
    """The configured `session_user` does not exist, or this process may not switch to it."""


@dataclass(frozen=True, slots=True)
class Account:
    """The unprivileged account that commands run as. Nothing else on the machine may use it: a wipe kills all of it."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]

    @classmethod
    def named(cls, name: str, place: Path) -> "Account":
        """The account of that name, with no home of its own but `place`, the session's. Raises AccountUnusable."""
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            raise AccountUnusable(f"There is no account {name!r}: create it, or change session_user.") from None
        if os.geteuid() != 0 or entry.pw_uid == 0:
            raise AccountUnusable(
                f"session_user {name!r} needs a client that runs as root, and an account that is not."
            )
        if owner_of(entry.pw_dir) == entry.pw_uid and Path(entry.pw_dir) != place:
            raise AccountUnusable(
                f"session_user {name!r} has a home where people could leave things for those after them: remove "
                f"{entry.pw_dir}, and usermod --home {place} {name}."
            )
        return cls(name, entry.pw_uid, entry.pw_gid, tuple(os.getgrouplist(name, entry.pw_gid)))


@dataclass(frozen=True, slots=True)
class Session:
    """STATE/session, for `account` (None: commands run as whoever runs the client).

    What the account leaves in the `shared` directories goes with the session.
    """

    directory: Path
    account: Account | None = None
    shared: tuple[str, ...] = SHARED_DIRECTORIES

    @property
    def belongings(self) -> Belongings:
        """How to recognise the session's processes."""
        return Belongings(str(self.directory), self.account.uid if self.account else None)

    @property
    def temporary(self) -> Path:
        """TMPDIR of the session, so that temporary files go the way of all others."""
        return self.directory / "tmp"

    def open(self) -> None:
        """Make the place, empty and private. Raises SessionNotClean when there is anything in it already."""
        self._remove_if_empty()
        for directory in (self.directory, self.temporary):
            directory.mkdir(mode=0o700)
        if self.account:  # the inner one first: in what is the account's, it could put a link in its place
            for directory in (self.temporary, self.directory):
                os.chown(directory, self.account.uid, self.account.gid)

    async def wipe(self) -> None:
        """Kill all of the session's processes, remove all of its files, durably. Raises WipeFailed. May be repeated.

        Once more where cron, or somebody else who may, has started something of the account's meanwhile.
        """
        try:
            for _ in range(_ROUNDS):
                await kill_remains(self.belongings)
                await asyncio.to_thread(self._remove_files)
                if not (self.account and find_remains(self.belongings)):
                    return
        except (OSError, ProcessesRemain) as error:
            raise WipeFailed(f"The machine could not be cleaned: {error}") from error
        raise WipeFailed(
            "The machine could not be cleaned: something keeps starting processes as the session's account."
        )

    def _remove_if_empty(self) -> None:
        try:
            for directory in (self.temporary, self.directory):
                directory.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            raise SessionNotClean(f"{self.directory} still holds an earlier lease's files: wipe it first.") from error

    def _remove_files(self) -> None:
        remove(self.directory)
        sync_directory(self.directory.parent)
        if self.account:
            for directory in filter(os.path.isdir, self.shared):
                sweep(os.path.realpath(directory), self.account)
            remove_made_by(self.account.uid)


def owner_of(path: str | Path, at: int | None = None) -> int | None:
    """Whose it is; None when it is not there, which what is not the session's may happen to be at any moment."""
    try:
        return os.stat(path, dir_fd=at, follow_symlinks=False).st_uid
    except FileNotFoundError:
        return None


def sweep(top: str, account: Account) -> None:
    """Remove what is the account's in a directory that others use too, as deep as the account can have gone.

    What is mounted below stays, as does everything in a directory that is closed to the account.
    """
    for _, directories, files, at in os.fwalk(top):
        for name in (*directories, *files):
            if owner_of(name, at) == account.uid:
                remove(name, at)
        directories[:] = [name for name in directories if _may_enter(name, at, account)]


def _may_enter(name: str, at: int, account: Account) -> bool:
    try:
        found = os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return False
    bit = stat.S_IXGRP if found.st_gid in (account.gid, *account.groups) else stat.S_IXOTH
    return bool(found.st_mode & bit) and found.st_dev == os.fstat(at).st_dev


def remove(path: str | Path, at: int | None = None) -> None:
    """Remove a file or a tree. No link is followed, closed directories are opened, no depth or number is too much."""
    try:
        is_directory = stat.S_ISDIR(os.stat(path, dir_fd=at, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return
    if not is_directory:
        os.unlink(path, dir_fd=at)
        return
    with _opened(path, at) as top:
        for entry in _entries(top):
            if entry.is_dir(follow_symlinks=False):
                _dissolve(entry.name, top)
            else:
                os.unlink(entry.name, dir_fd=top)
    os.rmdir(path, dir_fd=at)


def _dissolve(name: str, top: int) -> None:
    """Remove a directory of `top` after moving its subdirectories beside it: depth costs nothing then."""
    with _opened(name, top) as directory:
        for entry in _entries(directory):
            if entry.is_dir(follow_symlinks=False):
                _allow(entry.name, directory)  # moving a directory writes to it
                os.rename(entry.name, secrets.token_hex(16), src_dir_fd=directory, dst_dir_fd=top)
            else:
                os.unlink(entry.name, dir_fd=directory)
    os.rmdir(name, dir_fd=top)


def _entries(directory: int) -> Iterator[os.DirEntry[str]]:
    """All that is in the directory, a batch at a time: each entry must be gone when the next is asked for."""
    while batch := _batch(directory):
        yield from batch


def _batch(directory: int) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        return list(islice(entries, _BATCH))


@contextmanager
def _opened(name: str | Path, parent: int | None = None) -> Iterator[int]:
    _allow(name, parent)
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _allow(name: str | Path, parent: int | None) -> None:
    """Open a directory that its owner has closed. Root needs no leave, and would follow a link that takes its place."""
    if os.geteuid() != 0:
        os.chmod(name, 0o700, dir_fd=parent)

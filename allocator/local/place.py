"""The directory that one `lablink up` works in: made, claimed for one process at a time, reachable for its children."""

import fcntl
import os
import pwd
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from allocator.local.binaries import Account, reachable, unprivileged_account

NAME = ".lablink"
"""The data directory's usual name: found in the working directory or above, as Git finds its own."""

ELSEWHERE = Path("/var/lib/lablink-up")
"""Where root's machines live when their unprivileged user cannot reach the data directory."""


class UpFailed(Exception):
    """`lablink up` cannot do what was asked; the message says why and what to do."""


def nearest(start: Path | None = None) -> Path | None:
    """The data directory of the checkout that we are in, if there is one."""
    start = (start or Path.cwd()).absolute()
    return next((each / NAME for each in (start, *start.parents) if (each / NAME).is_dir()), None)


@contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """`directory`, made if need be, for this process alone."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = open(directory / "up.lock", "a+")
    except OSError as error:
        raise UpFailed(f"{directory} cannot be used ({error.strerror}): give another --data-dir.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise UpFailed(
                f"{directory} is in use by another `lablink up` (process {lock.read().strip() or 'unknown'}): "
                "stop that one, or give another --data-dir."
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


@contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """A socket that listens on the loopback, opened by us so that it stays open while the allocator restarts."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise UpFailed(
                f"Port {port} cannot be used ({error.strerror}): stop what uses it, or give another --port."
            ) from error
        listener.listen(512)
        yield listener


def account_of_machines() -> Account | None:
    """Whom clients and what they run belong to when we are root: nobody, who is not PostgreSQL; None for ourselves."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return unprivileged_account()
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def home_of_machines(directory: Path, account: Account | None) -> Path:
    """`directory`/vms: where each machine has its state, and where `account` may go (None: ourselves).

    A data directory below /root, say, is closed to everybody else; there `vms` is a link to a place that is not.
    """
    home = directory / "vms"
    if not reachable(home, account):
        _forget_lost_homes()
        if not home.exists():
            _link_elsewhere(home)
    home.mkdir(mode=0o755, exist_ok=True)
    return home.resolve()


def _link_elsewhere(home: Path) -> None:
    home.unlink(missing_ok=True)
    there = ELSEWHERE / secrets.token_hex(8)
    there.mkdir(parents=True, mode=0o755)
    (there / "linked-from").write_text(str(home.absolute()))
    home.symlink_to(there)


def _forget_lost_homes() -> None:
    """Remove what belonged to data directories that are gone."""
    for there in ELSEWHERE.glob("*/linked-from"):
        if Path(there.read_text()).resolve() != there.parent:
            shutil.rmtree(there.parent, ignore_errors=True)

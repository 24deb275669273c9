"""System V shared memory, semaphores and queues: they belong to an account, and stay when it has no process."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_IPC_RMID = 0  # linux/ipc.h
_KINDS = ("shm", "sem", "msg")


def remove_made_by(uid: int) -> None:
    """Remove all that the account has made of these; only root may ask. Raises OSError when something stays.

    Whose it is now says nothing, for that can be given away: whoever made it may remove it in any case. In a container
    root may not, so this is done as the account.
    """
    if not _any_made_by(uid):
        return
    remover = os.fork()
    if remover == 0:
        try:
            os.setuid(uid)
            _remove(uid)
        finally:
            os._exit(0)
    with suppress(ChildProcessError):  # the parent of adopted orphans may have let go of it by then
        os.waitpid(remover, 0)
    if _any_made_by(uid):
        raise OSError("shared memory, semaphores or queues cannot be removed")


def _remove(uid: int) -> None:
    libc = ctypes.CDLL(None)
    for number in _made_by(uid, "shm"):
        libc.shmctl(number, _IPC_RMID, None)
    for number in _made_by(uid, "sem"):
        libc.semctl(number, 0, _IPC_RMID)
    for number in _made_by(uid, "msg"):
        libc.msgctl(number, _IPC_RMID, None)


def _any_made_by(uid: int) -> bool:
    return any(True for kind in _KINDS for _ in _made_by(uid, kind))


def _made_by(uid: int, kind: str) -> Iterator[int]:
    with suppress(FileNotFoundError):  # another system than Linux
        heading, *rows = [line.split() for line in Path(f"/proc/sysvipc/{kind}").read_text().splitlines()]
        creator = heading.index("cuid")
        yield from (int(row[1]) for row in rows if int(row[creator]) == uid)

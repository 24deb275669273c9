"""System V shared memory, semaphores and queues: they belong to an account, and stay when it has no process."""

import ctypes
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_IPC_RMID = 0  # linux/ipc.h


def remove_made_by(uid: int) -> None:
    """Remove all that the account has made of these. Whose it is now says nothing: that can be given away."""
    libc = ctypes.CDLL(None)
    for number in _made_by(uid, "shm"):
        libc.shmctl(number, _IPC_RMID, None)
    for number in _made_by(uid, "sem"):
        libc.semctl(number, 0, _IPC_RMID)
    for number in _made_by(uid, "msg"):
        libc.msgctl(number, _IPC_RMID, None)


def _made_by(uid: int, kind: str) -> Iterator[int]:
    with suppress(FileNotFoundError):  # another system than Linux
        heading, *rows = [line.split() for line in Path(f"/proc/sysvipc/{kind}").read_text().splitlines()]
        creator = heading.index("cuid")
        yield from (int(row[1]) for row in rows if int(row[creator]) == uid)

"""Nothing that a command started may outlive its lease: marking processes, adopting orphans, finding and killing all.

A process belongs to a session when its environment carries the session's mark, when it runs as the account that only
sessions use, or, once this process adopts orphans, when it descends from this process. Everything here is Linux; on
other systems (a developer's laptop) the functions do less and say so.
"""

import asyncio
import ctypes
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

MARK = "LABLINK_SESSION"
"""Name of the environment variable that marks a session's processes; its value is the session's directory."""

_PATIENCE_SECONDS = 5.0
_STATUS = re.compile(rb"\nState:\t(\w).*\nPPid:\t(\d+).*\nUid:\t(\d+)", re.DOTALL)  # no name can contain a line's end
_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_GET_CHILD_SUBREAPER = 37


class ProcessesRemain(Exception):
    """Something the session started cannot be killed (a process stuck in the kernel). Take the machine out of use."""


@dataclass(frozen=True, slots=True)
class Belongings:
    """How to recognise a session's processes: their mark, and an account that nothing else uses (None: no such)."""

    mark: str
    uid: int | None


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    parent: int
    uid: int
    zombie: bool


def adopt_orphans() -> None:
    """Become the parent of every orphan below this process; from then on all that is below it is the session's.

    For a process that runs nothing but commands: call it once at start. No effect outside Linux.
    """
    if sys.platform == "linux":
        _libc().prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def adopts_orphans() -> bool:
    """Whether this process has called `adopt_orphans`."""
    if sys.platform != "linux":
        return False
    adopts = ctypes.c_int()
    _libc().prctl(_GET_CHILD_SUBREAPER, ctypes.byref(adopts), 0, 0, 0)
    return bool(adopts.value)


def reap_adopted(own: int) -> None:
    """Let go of adopted orphans that have ended; the exit code of the child `own` is left to whoever waits for it."""
    with suppress(ChildProcessError):
        while (dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and dead.si_pid != own:
            os.waitpid(dead.si_pid, os.WNOHANG)


def signal_group(leader: int, number: signal.Signals) -> None:
    """Signal a whole process group; one that is gone already is fine."""
    with suppress(ProcessLookupError, PermissionError):  # macOS says "permission" of a group of zombies
        os.killpg(leader, number)


async def kill_remains(of: Belongings) -> None:
    """Kill whatever is left of the session, however far it has daemonised. Raises ProcessesRemain after 5 s."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + _PATIENCE_SECONDS
    while remains := find_remains(of):
        for pid in remains:
            _kill(pid)
        if loop.time() > give_up:
            raise ProcessesRemain(f"{len(remains)} processes of the session cannot be killed")
        await asyncio.sleep(0.01)  # a killed process takes a moment to leave; nothing announces it


def find_remains(of: Belongings) -> list[int]:
    """Ids of the session's living processes. Dead ones that this process adopted are reaped on the way."""
    below = _living_descendants() if adopts_orphans() and _has_children() else set()
    return [pid for pid in _process_ids() if pid in below or _belongs(pid, of)]


def _process_ids() -> Iterator[int]:
    """All processes but this one."""
    names = os.listdir("/proc") if sys.platform == "linux" else []
    return (int(name) for name in names if name.isdecimal() and int(name) != os.getpid())


def _belongs(pid: int, of: Belongings) -> bool:
    """Whether a process has the session's mark or account. What its owner rules out is not read: a machine has many."""
    try:
        owner = os.stat(f"/proc/{pid}").st_uid  # the effective user, or root's for a process that hides
    except OSError:  # it ended while we looked
        return False
    if owner == os.geteuid() and _carries(pid, of.mark):
        return True
    process = _read(pid) if of.uid is not None and owner in (of.uid, 0) else None
    return process is not None and process.uid == of.uid and not process.zombie


def _has_children() -> bool:
    """Whether anything is below this process, dead or alive: the kernel knows without a search."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _living_descendants() -> set[int]:
    processes = {pid: process for pid in _process_ids() if (process := _read(pid))}
    below = _descendants(processes)
    dead = {pid for pid in below if processes[pid].zombie}
    for pid in dead:
        _reap(processes[pid])
    return below - dead


def _read(pid: int) -> _Process | None:
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as status:
            found = _STATUS.search(status.read())
    except OSError:  # it ended while we looked
        return None
    return _Process(pid, int(found[2]), int(found[3]), found[1] in b"ZX") if found else None


def _descendants(processes: dict[int, _Process]) -> set[int]:
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process.pid)
    found: set[int] = set()
    fresh = children.get(os.getpid(), [])
    while fresh:
        found.update(fresh)
        fresh = [child for pid in fresh for child in children.get(pid, [])]
    return found


def _carries(pid: int, mark: str) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as environ:
            return os.fsencode(f"{MARK}={mark}") in environ.read().split(b"\0")
    except OSError:  # gone, or somebody else's
        return False


def _reap(process: _Process) -> None:
    if process.parent == os.getpid():
        with suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)

"""Nothing that a command started may outlive its lease: marking processes, adopting orphans, ending and finding all.

A process belongs to a session when it runs as the account that only sessions use, when it descends from this process
(once this adopts orphans), or, where there is no such account, when its environment carries the session's mark. What
forks faster than anybody can list processes is ended all the same: see `kill_remains`. Everything here is Linux; on
other systems (a developer's laptop) the functions do less and say so.
"""

import asyncio
import ctypes
import os
import resource
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

MARK = "LABLINK_SESSION"
"""Name of the environment variable that marks a session's processes; its value is the session's directory."""

_PATIENCE_SECONDS = 15.0
"""Also for a machine that stands still for some: being taken out of use for that, it would wait for an admin."""
_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_GET_CHILD_SUBREAPER = 37
_KEYCTL = {"x86_64": 250, "aarch64": 219}
_KEYCTL_CLEAR, _KEYCTL_GET_PERSISTENT = 7, 22  # linux/keyctl.h
_PROCESS_KEYRING, _USER_KEYRING, _USER_SESSION_KEYRING = -2, -4, -5


class ProcessesRemain(Exception):
    """Something the session started cannot be killed (a process stuck in the kernel). Take the machine out of use."""


@dataclass(frozen=True, slots=True)
class Belongings:
    """How to recognise a session's processes: their mark, and an account that nothing else uses (None: no such)."""

    mark: str
    uid: int | None


def adopt_orphans() -> None:
    """Become the parent of every orphan below this process; from then on all that is below it is the session's.

    For a process that runs nothing but commands: call it once at start. No effect outside Linux.
    """
    if sys.platform == "linux":
        _libc().prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def limit_all_below() -> None:
    """Let what descends from this process take half of the kernel's room for processes at most, and dump no core.

    The other half is for those who end it. Cores are kept for the account by the system (systemd-coredump, apport), so
    they would be there for the account's next holder. A root process is not limited in number. No effect outside Linux.
    """
    if sys.platform == "linux":
        half = int(Path("/proc/sys/kernel/pid_max").read_text()) // 2
        for kind, most in ((resource.RLIMIT_NPROC, half), (resource.RLIMIT_CORE, 0)):
            allowed = resource.getrlimit(kind)[1]
            most = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
            resource.setrlimit(kind, (most, most))


def adopts_orphans() -> bool:
    """Whether this process has called `adopt_orphans`."""
    if sys.platform != "linux":
        return False
    adopts = ctypes.c_int()
    _libc().prctl(_GET_CHILD_SUBREAPER, ctypes.byref(adopts), 0, 0, 0)
    return bool(adopts.value)


def reap_adopted(own: int) -> None:
    """Let go of adopted orphans that have ended; the exit code of the child `own` is left to whoever waits for it.

    As long as that one is there, dead, the kernel names no other: what its end made orphans of is gone through then.
    """
    with suppress(ChildProcessError):
        while (dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and dead.si_pid != own:
            os.waitpid(dead.si_pid, os.WNOHANG)
        for pid in children_of(os.getpid()) if dead else ():
            if pid != own:
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


def signal_group(leader: int, number: signal.Signals) -> None:
    """Signal a whole process group; one that is gone already is fine."""
    with suppress(ProcessLookupError, PermissionError):  # macOS says "permission" of a group of zombies
        os.killpg(leader, number)


async def kill_remains(of: Belongings) -> None:
    """Kill whatever is left of the session, however far it daemonised, however fast it forks. May be repeated.

    With an account nothing escapes. Without, what throws its mark away or forks that fast does, once this process has
    been killed and started again. Raises ProcessesRemain after 15 s.
    """
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            for is_done in (_end_account, _end_children, _end_found):
                while not is_done(of):  # noqa: ASYNC110  # dying takes a moment, and nothing announces it
                    await asyncio.sleep(0)
    except OSError as error:  # TimeoutError is one, and fork's "no room"
        reason = str(error) or f"not in {_PATIENCE_SECONDS:.0f} s"
        raise ProcessesRemain(f"The session's processes cannot be killed: {reason}.") from error


def find_remains(of: Belongings) -> list[int]:
    """Ids of the living processes that have the session's account, or its mark where it has none."""
    names = os.listdir("/proc") if sys.platform == "linux" else []
    processes = (int(name) for name in names if name.isdecimal())
    return [pid for pid in processes if pid != os.getpid() and _belongs(pid, of)]


def _end_account(of: Belongings) -> bool:
    """Have the kernel kill all that runs as the account at one stroke, which no fork escapes. Whether that was done.

    Only a process that is the account itself can ask for it; others of the account may kill or stop that one first.
    """
    if not of.uid:
        return True
    striker = os.fork()
    if striker == 0:
        _strike(of.uid)
    _, status = os.waitpid(striker, os.WUNTRACED)
    return status == 0


def _strike(uid: int) -> NoReturn:
    failed = 1
    try:
        os.setuid(uid)
        with suppress(ProcessLookupError, PermissionError):  # there is none
            os.kill(-1, signal.SIGKILL)
        _clear_keyrings()
        failed = 0
    finally:
        os._exit(failed)


def _clear_keyrings() -> None:
    """Forget the keys that the kernel keeps for this process's account (keyrings(7)): they need no process to stay."""
    if sys.platform == "linux" and (number := _KEYCTL.get(os.uname().machine)):
        keyctl = _libc().syscall
        persistent = keyctl(number, _KEYCTL_GET_PERSISTENT, -1, _PROCESS_KEYRING)
        for keyring in (_USER_KEYRING, _USER_SESSION_KEYRING, persistent):
            keyctl(number, _KEYCTL_CLEAR, keyring)


def _end_children(_of: Belongings) -> bool:
    """Kill this process's children and reap the dead; whether none is left. Whoever loses its parent is a child next.

    Of a chain in which each forks and ends, one is caught between its fork and the next after some tries: what is
    killed is what the kernel says is a child now, not what a walk through /proc found a while ago.
    """
    if not adopts_orphans():
        return True
    for pid in children_of(os.getpid()):
        _kill(pid)
    try:
        while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG):
            pass
    except ChildProcessError:
        return True
    return False


def children_of(pid: int) -> list[int]:
    """Ids of a process's children, dead ones included; none when it is gone."""
    found: list[int] = []
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb", buffering=0) as children:
                found += map(int, children.read().split())
    return found


def _end_found(of: Belongings) -> bool:
    """Kill all that can be found, also what lost its parent before this process began; whether there was nothing."""
    remains = find_remains(of)
    for pid in remains:
        _kill(pid)
    return not remains


def _belongs(pid: int, of: Belongings) -> bool:
    """Whether a living process has the session's account, or its mark. What its owner rules out is not read."""
    try:
        owner = os.stat(f"/proc/{pid}").st_uid  # the effective user
        if of.uid is None:
            return owner == os.geteuid() and _carries(pid, of.mark)
        return owner == of.uid and not _is_dead(pid)
    except OSError:  # gone, or somebody else's
        return False


def _is_dead(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", "rb", buffering=0) as stat:
        return stat.read().rpartition(b") ")[2][:1] in b"ZX"


def _carries(pid: int, mark: str) -> bool:
    with open(f"/proc/{pid}/environ", "rb", buffering=0) as environ:
        return os.fsencode(f"{MARK}={mark}") in environ.read().split(b"\0")


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)

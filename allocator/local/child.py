"""The first lines of a child process of `lablink up`: it gives up root, dies with its parent, then becomes the program.

Run as `python -m allocator.local.child PARENT USER PROGRAM [ARGUMENT…]`; USER is empty to stay who we are. Privileges
are given up here and not by the parent, because an interpreter in root's home cannot be started by anybody else.
"""

import ctypes
import importlib
import os
import pwd
import signal
import sys
from collections.abc import Iterable

PROGRAMS = {"lablink": "allocator.cli", "lablink-client": "client.cli"}
"""Our commands, by the module whose `main()` they are."""

PR_SET_PDEATHSIG = 1
PARENT_IS_GONE = 70


def main() -> None:
    """Become the program that the command line names."""
    parent, user, program, *arguments = sys.argv[1:]
    if user:
        hold_modules_open()
        become(user)
    die_with(int(parent))
    sys.argv = [program, *arguments]
    importlib.import_module(PROGRAMS[program]).main()


def become(user: str) -> None:
    """Give up root for `user`, for good."""
    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    os.umask(0o077)


def hold_modules_open() -> None:
    """Keep modules importable that the next user cannot reach by their path, through descriptors."""
    if sys.platform != "linux":
        return
    sys.path[:] = _held(sys.path)
    for module in list(sys.modules.values()):
        if hasattr(module, "__path__"):
            module.__path__ = _held(module.__path__)
    sys.path_importer_cache.clear()


def _held(directories: Iterable[str]) -> list[str]:
    return [f"/proc/self/fd/{os.open(each, os.O_PATH)}" if os.path.isdir(each) else each for each in directories]


def die_with(parent: int) -> None:
    """Have the kernel end this process when `parent` dies (Linux; elsewhere only an orderly stop ends it).

    Set after the change of user, which clears it, and checked after setting, because the parent may be gone by then.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(PARENT_IS_GONE)


if __name__ == "__main__":
    main()

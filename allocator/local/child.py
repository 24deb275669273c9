"""The first lines of a child process of `lablink up`: it gives up root, dies with its parent, then becomes the program.

Run as `python -m allocator.local.child PARENT USER PROGRAM [ARGUMENT…]`; USER is a number, or empty to stay who we are.
Privileges are given up here and not by the parent, because an interpreter in root's home cannot be started by anybody
else.
"""

import importlib
import os
import signal
import sys
from collections.abc import Iterable

from client.parent import dying_with_parent

PROGRAMS = {"lablink": "allocator.cli", "lablink-client": "client.cli"}
"""Our commands, by the module whose `main()` they are."""


def main() -> None:
    """Become the program that the command line names."""
    parent, user, program, *arguments = sys.argv[1:]
    if user:
        hold_modules_open()
        become(int(user))
    dying_with_parent(signal.SIGTERM, int(parent))()
    sys.argv = [program, *arguments]
    importlib.import_module(PROGRAMS[program]).main()


def become(user: int) -> None:
    """Give up root for the user and the group of that number, for good."""
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
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


if __name__ == "__main__":
    main()

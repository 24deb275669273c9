"""Has the kernel end a process as soon as the one that started it is gone."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_SET_PDEATHSIG = 1  # linux/prctl.h


def dying_with_parent(sign: signal.Signals, parent: int | None = None) -> Callable[[], None]:
    """What a child calls, so that it gets `sign` when `parent` (this process) dies; it ends if that has happened.

    To be called after the child's last change of user, which takes it back. Outside Linux only the latter is done.
    """
    parent = parent or os.getpid()
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None  # between fork and exec no lock may be taken

    def arrange() -> None:
        if prctl is not None:
            prctl(_SET_PDEATHSIG, sign, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(128 + sign)

    return arrange

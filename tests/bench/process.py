"""What a process of the bench needs of the system: room for thousands of sockets, its size, and patience."""

import asyncio
import resource
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

LOOK_SECONDS = 0.01


def many_files() -> None:
    """Let this process open as many files as it may be let."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def resident() -> int:
    """Bytes of memory that this process has."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


async def becomes(true: Callable[[], Awaitable[object] | bool], seconds: float) -> bool:
    """Whether it becomes true in that time; returns when it does."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        answer = true()
        if answer if isinstance(answer, bool) else await answer:
            return True
        await asyncio.sleep(LOOK_SECONDS)
    return False

"""The children of `lablink up` end with it, whatever happens to whoever lets one of them go."""

import asyncio
import os
from pathlib import Path

from allocator.local.supervisor import Child, environment, kept_running
from tests.support import LIMIT_SECONDS

DEAF = """
import signal
from pathlib import Path

here = Path({here!r})
signal.signal(signal.SIGTERM, lambda *_: (here / "asked").open("w").close())
(here / "up").open("w").close()
while True:
    signal.pause()
"""
"""What Python does first in a child that is told to end and does not."""


async def opened(fifo: Path) -> None:
    """Return when the child has opened it, too."""
    async with asyncio.timeout(LIMIT_SECONDS):
        await asyncio.to_thread(fifo.read_bytes)


async def test_a_child_that_was_being_let_go_ends_with_the_others(tmp_path: Path) -> None:
    for name in ("up", "asked"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "sitecustomize.py").write_text(DEAF.format(here=str(tmp_path)))
    child = Child("deaf", ["lablink"], tmp_path / "log", environment(PYTHONPATH=str(tmp_path)))
    hurry = asyncio.Event()
    async with kept_running([child], print, hurry, grace_seconds=LIMIT_SECONDS) as crew:
        await opened(tmp_path / "up")
        leaving = asyncio.create_task(crew.stop(["deaf"]))
        await opened(tmp_path / "asked")
        leaving.cancel()
        await asyncio.wait([leaving])
        hurry.set()

    assert child.process
    assert child.process.returncode == -9

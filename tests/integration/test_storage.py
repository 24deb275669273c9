"""What is being put where backups lie is there, or is not, when whoever put it has ended."""

import asyncio
import os
from pathlib import Path

import pytest

from allocator.upkeep.storage import Directory


async def ignore(_done: int, _total: int | None, _what: str) -> None:
    pass


def private(file: Path) -> None:
    """Return when it is its owner's only, which is what is done to it first."""
    while file.stat().st_mode & 0o77:
        pass


async def test_nothing_comes_after_whoever_put_it_there_was_cancelled(tmp_path: Path) -> None:
    file, directory = tmp_path / "slow", Directory(tmp_path)
    os.mkfifo(file)  # whoever opens it waits until somebody writes
    file.chmod(0o640)
    putting = asyncio.create_task(directory.put("backup.dump", file, ignore))
    await asyncio.to_thread(private, file)
    putting.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    goes_on = not putting.done()
    file.open("wb").close()
    with pytest.raises(asyncio.CancelledError):
        await putting

    assert goes_on

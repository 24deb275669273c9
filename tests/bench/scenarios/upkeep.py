"""Times what happens to a large database as a whole: a backup, its trial, its restore."""

import tempfile
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import TypeVar

from allocator.operations import running
from allocator.upkeep.backup import back_up
from allocator.upkeep.reach import connect, connected
from allocator.upkeep.rehearse import verify
from allocator.upkeep.restore import restore
from allocator.upkeep.storage import Directory
from tests.bench.figures import Section, Value
from tests.bench.ground import Ground
from tests.bench.options import Options, Progress

T = TypeVar("T")

DATABASE = "bench_upkeep"
EVENTS = """
    INSERT INTO events (actor, kind, vm_id, hostname, detail)
    SELECT 'bench', 'vm.available', 1 + g % $1, 'vm-' || 1 + g % $1, '{"from": "cleaning", "epoch": 0}'
    FROM generate_series(1, $2) AS g
"""


async def measure(own: Ground, options: Options, progress: Progress) -> list[Section]:
    """The section about the database's own life."""
    vms, events = options.kept, 10 * options.kept
    await _fill(own, vms, events)
    progress(0.3)
    section = Section(f"The database: {vms:,} VMs and {events:,} events")
    with tempfile.TemporaryDirectory(prefix="lablink-bench-backups-") as directory:
        async for count in _life(own.dsn("lablink", DATABASE), Directory(Path(directory))):
            section.values.append(count)
            progress(0.7 / 4)
    return [section]


async def _fill(own: Ground, vms: int, events: int) -> None:
    await own.clone(DATABASE)
    await own.fill(DATABASE, vms)
    async with connected(own.dsn("lablink", DATABASE)) as owner:
        await owner.execute(EVENTS, vms, events)
        await owner.execute("VACUUM ANALYZE events")


async def _life(dsn: str, storage: Directory) -> AsyncIterator[Value]:
    """A backup, its trial, and the way back."""
    seconds, made = await _timed(back_up(dsn, storage, _ignore))
    yield Value("backup", seconds, None, "s")
    yield Value("its size", made.size / 1e6, None, "MB")
    seconds, tried = await _timed(verify(dsn, storage, made.name, _ignore))
    assert not tried.problems, tried.problems
    yield Value("backup verify", seconds, None, "s")
    seconds, _ = await _timed(_restored(dsn, storage, made.name))
    yield Value("restore, all machines to be cleaned", seconds, None, "s")


async def _restored(dsn: str, storage: Directory, name: str) -> None:
    async with running(lambda: connect(dsn), "restore", "bench") as operation:
        await restore(dsn, storage, name, operation, force=True)


async def _timed(work: Awaitable[T]) -> tuple[float, T]:
    began = time.perf_counter()
    done = await work
    return time.perf_counter() - began, done


async def _ignore(_done: int, _total: int | None, _what: str) -> None:
    """Nobody watches."""

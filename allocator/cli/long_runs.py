"""What every long command does: an operation with its history, progress for whoever watches, failures in words."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from allocator.cli.database import find, os_user
from allocator.cli.failures import explained
from allocator.cli.output import console
from allocator.operations import Operation, Tell, running, who
from allocator.upkeep.reach import connect

T = TypeVar("T")


def run_operation(
    kind: str, work: Callable[[str, Operation], Awaitable[T]], data_dir: Path | None, settings: list[str] | None
) -> T:
    """What `work` returns, which is given the owner's connection string and the operation that it is."""

    async def run() -> T:
        place = await find(data_dir, settings or [])
        with explained(place.advice), shown_progress() as tell:
            async with running(lambda: connect(place.dsn), kind, who(f"cli ({os_user()})"), tell=tell) as operation:
                return await work(place.dsn, operation)

    return asyncio.run(run())


@contextmanager
def shown_progress() -> Iterator[Tell]:
    """A bar on standard error while the block runs, if that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    watched = sys.stderr.isatty()
    with Progress(*columns, console=console(sys.stderr), transient=True, disable=not watched) as bars:
        task = bars.add_task("", total=None)

        async def tell(done: int, total: int | None, what: str) -> None:
            bars.update(task, completed=done, total=total, description=what)

        yield tell

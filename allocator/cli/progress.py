"""How far something long is, on standard error and only on a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console


@contextmanager
def telling(what: str) -> Iterator[Callable[[str, int, int], None]]:
    """A function for the block, which is told the thing at hand, how many are done, and of how many."""
    console = Console(file=sys.stderr, highlight=False, markup=False)
    if not console.is_terminal:
        yield lambda _thing, _done, _total: None
        return
    with console.status(f"{what} …") as status:
        yield lambda thing, done, total: status.update(f"{what} {thing} ({done + 1} of {total}) …")

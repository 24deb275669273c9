"""Tells the person at the terminal what `lablink up` does, and how long each step took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text


@dataclass
class Step:
    """One step that is under way; `detail` is what it turned out to be."""

    detail: str = ""


@dataclass(frozen=True)
class Progress:
    """A spinner and coloured marks on a terminal; plain lines in a file or a pipe."""

    console: Console

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """One line for what happens in the block, printed at its end with its duration."""
        step, began = Step(), time.monotonic()
        with self._spinner(title):
            yield step
        took = f"{time.monotonic() - began:4.1f} s"
        self._print(Text.assemble(("✓ ", "green"), f"{title:<12}", (f"{step.detail:<48}", "dim"), (took, "dim")))

    def say(self, sentence: str) -> None:
        """Something that happened by itself, with the time."""
        self._print(Text.assemble((time.strftime("%H:%M:%S"), "dim"), "  ", sentence))

    def show(self, headline: str, facts: dict[str, str]) -> None:
        """The last word: what there is and where."""
        self._print(Text(f"\n{headline}\n"))
        for title, value in facts.items():
            self._print(Text.assemble((f"  {title:<6}", "dim"), value))
        self._print(Text())

    def _print(self, text: Text) -> None:
        with suppress(OSError):  # nobody reads any more: no reason to stop what others use
            self.console.print(text, soft_wrap=True)

    @contextmanager
    def _spinner(self, title: str) -> Iterator[None]:
        if not self.console.is_terminal:
            yield
            return
        with self.console.status(f"{title} …"):
            yield

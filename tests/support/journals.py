"""A machine's journal, as its client reads it at the start."""

from pathlib import Path

from client.journal import Journal


def opened(path: Path) -> Journal:
    """The journal at `path`, in which every open intent has become unknown. Raises JournalError."""
    journal = Journal(path)
    journal.reload()
    return journal

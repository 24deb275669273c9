"""What the commands print: a table for people, JSON for programs; nothing a person needs is ever cut off."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TextIO
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from allocator.cli.failures import CommandFailed
from allocator.cli.table import Table

Row = Mapping[str, Any]

PAGE_WIDTH = 32_000
"""Columns of a table that goes to a file or a pipe: wide enough that a row stays on one line."""

STATUS_STYLES = {
    "available": "green",
    "active": "green",
    "in-use": "cyan",
    "assigned": "cyan",
    "claimed": "cyan",
    "queued": "yellow",
    "booting": "yellow",
    "cleaning": "yellow",
    "failed": "red",
}

CONTROLS = [*range(9), *range(11, 32), *range(0x7F, 0xA0)]
DIRECTIONS = [0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)]
UNSEEN = [*CONTROLS, *DIRECTIONS]
"""What terminals act on instead of showing it: control characters, and those that turn the direction of writing."""

SPACES = str.maketrans("\n\t", "  ")
HARMLESS = dict.fromkeys(UNSEEN, "�")
ESCAPED = {number: f"\\u{number:04x}" for number in UNSEEN}

NOTHING: tuple[object, ...] = (None, "", {}, [])

EVENT_COLUMNS = {
    "id": "Id",
    "at": "When",
    "kind": "What",
    "hostname": "VM",
    "lease_id": "Lease",
    "actor": "Who",
    "detail": "Detail",
}

SHORT_ID = 8
MINUTE, HOUR, DAY = 60, 3600, 86_400


def console(stream: TextIO | None = None) -> Console:
    """A console on `stream` (standard output) that neither guesses colours nor folds text for a machine."""
    stream = stream or sys.stdout
    return Console(
        file=stream, width=None if stream.isatty() else PAGE_WIDTH, highlight=False, markup=False, emoji=False
    )


def say(text: str) -> None:
    """Print a sentence for the person."""
    console().print(text.translate(HARMLESS), soft_wrap=True)


def ask(question: str) -> None:
    """Have the person at the terminal agree. Raises Abort if they do not, and CommandFailed where nobody can."""
    if not sys.stdin.isatty():
        raise CommandFailed(f"{question} Nobody can be asked here: add --yes if you agree.")
    typer.confirm(question, abort=True, err=True)


def complain(text: str) -> None:
    """Print a sentence about something that went wrong, on standard error."""
    tell(text)


def tell(text: str) -> None:
    """Print a sentence for the person beside what a file or another program takes, on standard error."""
    console(sys.stderr).print(text.translate(HARMLESS), soft_wrap=True)


def dump(value: object, *, indent: int | None = None) -> str:
    """`value` as JSON, on one line unless indented; times in ISO 8601."""
    return json.dumps(value, default=_plain, ensure_ascii=False, indent=indent).translate(ESCAPED)


def print_json(value: object) -> None:
    """Print `value` as JSON: laid out for a terminal, on one line for a pipe; flushed, so that a follower sees it."""
    print(dump(value, indent=2 if sys.stdout.isatty() else None), flush=True)


def print_json_lines(rows: Iterable[Row]) -> None:
    """Print each row of a stream as a line of JSON, at once."""
    for row in rows:
        print(dump(dict(row)), flush=True)


def show_rows(
    rows: Iterable[Row], columns: Mapping[str, str], *, now: datetime | None = None, empty: str = "", as_json: bool
) -> None:
    """Print rows as a table of the keys in `columns`, or `empty` when there is none; or all of them as JSON.

    Times are told against `now`, which is the database's where the times are; left out, this machine's.
    """
    listed = [dict(row) for row in rows]
    if as_json:
        print_json(listed)
    elif listed:
        console().print(table(listed, columns, now=now or datetime.now(UTC)))
    elif empty:
        say(empty)


def show_thing(thing: Row, titles: Mapping[str, str], events: Sequence[Row], *, now: datetime, as_json: bool) -> None:
    """Print one machine or lease with its last events; or both as one JSON object."""
    if as_json:
        return print_json(dict(thing) | {"events": [dict(event) for event in events]})
    console().print(facts(thing, titles, now=now))
    if events:
        console().print()
        console().print(table(events, EVENT_COLUMNS, now=now))


def show_change(change: Row, sentence: str, *, as_json: bool) -> None:
    """Print what a command changed, as a sentence or as JSON."""
    if as_json:
        return print_json(dict(change))
    say(sentence)


def table(rows: Iterable[Row], columns: Mapping[str, str], *, now: datetime) -> Table:
    """Rows under titles; a column in which nothing stands, or no throughout, is left out.

    Long values are folded, never cut off. Only a lease's id is shortened: commands know it by its beginning, too.
    """
    listed = list(rows)
    used = {key: title for key, title in columns.items() if any(_stands(row[key]) for row in listed)}
    return Table(list(used.values()), [[_one_line(cell(_short(row[key]), now)) for key in used] for row in listed])


def facts(thing: Row, titles: Mapping[str, str], *, now: datetime) -> Grid:
    """One thing as lines of title and value, leaving out what is not set."""
    made = Grid(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for key, title in titles.items():
        if _stands(thing[key]):
            made.add_row(title, cell(thing[key], now))
    return made


def _stands(value: object) -> bool:
    """Whether there is something to say: a 0 is, a no is not."""
    return value is not False and value not in NOTHING


def cell(value: object, now: datetime) -> Text:
    """A value as a person reads it: times relative to `now`, statuses coloured, nothing as a dash."""
    if value is None:
        return Text("–", style="dim")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, datetime):
        return Text(ago(value, now))
    if isinstance(value, dict):
        value = ", ".join(f"{key}={_word(item)}" for key, item in value.items())
    text = str(value).rstrip("\n").translate(HARMLESS)
    return Text(text, style=STATUS_STYLES.get(text, ""))


def ago(at: datetime, now: datetime) -> str:
    """`at` as seen from `now`: "just now", "40 s ago", "3 min ago", "in 2 h", "5 days ago"."""
    seconds = (now - at) / timedelta(seconds=1)
    if abs(seconds) < 1:
        return "just now"
    text = duration(abs(seconds))
    return f"{text} ago" if seconds > 0 else f"in {text}"


def duration(seconds: float) -> str:
    """A length of time, rounded down: "40 s", "3 min", "7 h 59 min", "5 days"."""
    if seconds < MINUTE:
        return f"{int(seconds)} s"
    if seconds < HOUR:
        return f"{int(seconds // MINUTE)} min"
    if seconds < DAY:
        hours, rest = divmod(int(seconds), HOUR)
        return f"{hours} h {rest // MINUTE} min" if rest >= MINUTE else f"{hours} h"
    days = int(seconds // DAY)
    return f"{days} day{'s' if days > 1 else ''}"


def _short(value: object) -> object:
    return str(value)[:SHORT_ID] if isinstance(value, UUID) else value


def _one_line(text: Text) -> Text:
    """What stands in a table stays in its row: a second line would look like another row."""
    return Text(text.plain.translate(SPACES), style=text.style)


def _word(item: object) -> str:
    return item if isinstance(item, str) else dump(item)


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else str(value)

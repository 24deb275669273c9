"""`lablink verify`: whether the database keeps every promise, at this moment."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli.options import DataDir, Json, Settings

if TYPE_CHECKING:
    from allocator.upkeep.history import Head
    from allocator.upkeep.surroundings import Finding

WRONG = {"rule": "Rule", "what": "What is wrong", "cure": "What to do"}
NOTES = WRONG | {"what": "Worth knowing"}

Since = Annotated[
    str | None,
    typer.Option(metavar="DATE", help="Of the history, only what was sealed since, for example 2026-11-01 (UTC)."),
]
Kept = Annotated[
    str | None,
    typer.Option(metavar="SEAL:HASH", help="A seal that you kept, from the service's log or beside a backup."),
]


def verify(
    since: Since = None,
    head: Kept = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Check the database: its version, tables, functions, rights and roles, every rule of the design, and the history.

    Tables, functions and rights are compared with those that this version makes, in a database that is dropped again.
    The history is compared with its seals: what was changed, removed or added behind them is named. With --head even a
    history that was sealed anew shows. Exits with 0 when all is well, and with 1 and a line for each thing that is not.
    Safe to run at any time. `lablink db verify` looks at the server around the database as well.

    Examples:

    - `lablink verify && echo all is well`
    - `lablink verify --since 2026-11-01 --head 4711:5e88…`
    """
    from allocator.cli.database import asked
    from allocator.cli.long_runs import shown_progress
    from allocator.upkeep.verify import promises

    kept, from_then = _head(head), _moment(since)
    with shown_progress() as tell:
        found = asked(lambda dsn: promises(dsn, since=from_then, head=kept, tell=tell), data_dir, settings or [])
    tell_findings(found, as_json)


def tell_findings(found: "list[Finding]", as_json: bool) -> None:
    """Print what was found, and end with exit code 1 when some of it is wrong."""
    from dataclasses import asdict

    from allocator.cli import output

    wrong, notes = ([asdict(each) for each in found if each.wrong is which] for which in (True, False))
    if as_json:
        output.print_json([*wrong, *notes])
    else:
        output.show_rows(wrong, WRONG, empty="Everything is as it must be.", as_json=False)
        if notes:
            print()
            output.show_rows(notes, NOTES, as_json=False)
    if wrong:
        raise typer.Exit(1)


def _moment(text: str | None) -> datetime | None:
    from allocator.cli.failures import Misused

    try:
        when = datetime.fromisoformat(text) if text else None
    except ValueError:
        raise Misused(f"{text} is no date: give 2026-11-01, or 2026-11-01T06:30:00.") from None
    return when.replace(tzinfo=when.tzinfo or UTC) if when else None


def _head(text: str | None) -> "Head | None":
    from allocator.cli.failures import Misused
    from allocator.upkeep.history import Head

    try:
        return Head.of(text) if text else None
    except ValueError:
        raise Misused(f"{text} is no head of the history: give SEAL:HASH as the service logs it.") from None

"""`lablink verify`: whether the database keeps every promise, at this moment."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli.options import DataDir, Json, Settings, run_on_database

if TYPE_CHECKING:
    from allocator.upkeep.history import Head

COLUMNS = {"rule": "Rule", "what": "What is wrong"}


def verify(
    since: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="Of the history, only what was sealed since (UTC)."
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(metavar="SEAL:HASH", help="A seal that you kept, from the service's log or beside a backup."),
    ] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Check the database: every invariant of the design, its version, its triggers, who may do what, and the history.

    The history is compared with its seals: what was changed, removed or added behind them is named. With --head even a
    history that was sealed anew shows. Exits with 0 when all is well, and with 1 and a line for each thing that is not.
    Safe to run at any time.

    Examples:

    - `lablink verify && echo all is well`
    - `lablink verify --since 2026-11-01 --head 4711:5e88…`
    """
    from allocator.cli import admin, output
    from allocator.cli.database import versions
    from allocator.cli.long_runs import shown_progress
    from allocator.cli.schema import broken_facts
    from allocator.upkeep.history import broken_history

    kept = _head(head)
    missing = [step for step in versions(data_dir, settings or []) if not step.applied]
    broken = [{"rule": "version", "what": f"version {step.version} is missing: lablink db migrate"} for step in missing]
    from_then = since and since.replace(tzinfo=UTC)

    async def work(connection: admin.Connection) -> None:
        broken.extend(await broken_facts(connection))
        broken.extend(await admin.broken_invariants(connection))
        with shown_progress() as tell:
            found = await broken_history(connection, since=from_then, head=kept, tell=tell)
        broken.extend({"rule": "history", "what": what} for what in found)
        now = await admin.clock(connection)
        output.show_rows(broken, COLUMNS, now=now, empty="Everything is as it must be.", as_json=as_json)

    run_on_database(work, data_dir, settings)
    if broken:
        raise typer.Exit(1)


def _head(text: str | None) -> "Head | None":
    from allocator.cli.failures import Misused
    from allocator.upkeep.history import Head

    try:
        return Head.of(text) if text else None
    except ValueError:
        raise Misused(f"{text} is no head of the history: give SEAL:HASH as the service logs it.") from None

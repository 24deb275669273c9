"""`lablink db archive` and `db archives`: old months of the history, in files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli.options import CONTEXT, DataDir, Json, Settings, run_on_database

if TYPE_CHECKING:
    from datetime import date

    from allocator.operations import Operation
    from allocator.upkeep.archive import Archived
    from client.network import Connection

app = typer.Typer()
archives = typer.Typer(help="Months of the history that are in files.", **CONTEXT)
app.add_typer(archives, name="archives")

MOVED = {"month": "Month", "events": "Events", "file": "File", "sha256": "SHA-256"}
COLUMNS = MOVED | {"archived_at": "Archived", "archived_by": "By"}
NONE = "No month is archived."
LIST = """
    SELECT to_char(month, 'YYYY-MM') AS month, events, file, archived_at, archived_by, encode(sha256, 'hex') AS sha256
    FROM event_archives ORDER BY archive
"""


@app.command("archive")
def archive_months(
    before: Annotated[str, typer.Option("--before", metavar="YYYY-MM", help="The first month that stays.")],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Where the files go.", file_okay=False)],
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Move old months of the history into files, one a month. Their seals stay: the files can be checked against them.

    A month whose events are not what was sealed stays. Keep the files where the database's owner cannot change them.

    Example: `lablink db archive --before 2026-09 --to /var/backups/lablink`
    """
    from dataclasses import asdict

    from allocator.cli import output

    rows = [asdict(each) for each in _archived(_month(before), to, data_dir, settings)]
    empty = f"No month before {before} is left."
    output.show_rows(rows, MOVED, empty=empty, as_json=as_json)


def _archived(month: "date", to: Path, data_dir: Path | None, settings: list[str] | None) -> "list[Archived]":
    from allocator.cli.database import os_user
    from allocator.cli.long_runs import run_operation
    from allocator.upkeep.archive import archive
    from allocator.upkeep.reach import connected

    async def work(dsn: str, operation: "Operation") -> "list[Archived]":
        async with connected(dsn) as connection:
            await connection.execute("SELECT set_config('lablink.actor', $1, false)", f"cli:{os_user()}")
            moved = await archive(connection, month, to, operation.progress)
        operation.result = {"months": [each.month for each in moved]}
        return moved

    return run_operation("archive", work, data_dir, settings)


@archives.command("list")
def list_archives(as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """Every month that was archived, and the name of its file."""
    from allocator.cli import admin, output

    async def work(connection: "Connection") -> None:
        rows = [dict(row) for row in await connection.fetch(LIST)]
        output.show_rows(rows, COLUMNS, now=await admin.clock(connection), empty=NONE, as_json=as_json)

    run_on_database(work, data_dir, settings)


@archives.command("verify")
def verify_archive(
    file: Annotated[Path, typer.Argument(help="The file.", exists=True, dir_okay=False)],
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Check a file against the seals that the database kept. Exits with 1 and a line for each thing that is wrong.

    Example: `lablink db archives verify /var/backups/lablink/events-2026-08.jsonl.gz`
    """
    from allocator.cli import admin, output
    from allocator.upkeep.archive import broken_archive

    broken: list[str] = []

    async def work(connection: "Connection") -> None:
        broken.extend(await broken_archive(connection, file))
        rows = [{"what": what} for what in broken]
        empty = f"{file.name} is what was sealed."
        output.show_rows(
            rows, {"what": "What is wrong"}, now=await admin.clock(connection), empty=empty, as_json=as_json
        )

    run_on_database(work, data_dir, settings)
    if broken:
        raise typer.Exit(1)


def _month(text: str) -> "date":
    from datetime import date

    from allocator.cli.failures import Misused

    try:
        return date.fromisoformat(f"{text}-01")
    except ValueError:
        raise Misused(f"{text} is not a month: give one as 2026-09.") from None

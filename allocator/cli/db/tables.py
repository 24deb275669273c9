"""`lablink db sizes, vacuum, reindex`: how large the tables are, and what keeps them in shape."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from allocator.cli.options import DataDir, Json, Settings, run_on_database

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from allocator.upkeep.tables import Treated
    from client.network import Connection

    Work = Callable[[Connection], Awaitable[None]]

app = typer.Typer()

Table = Annotated[str | None, typer.Argument(metavar="[TABLE]", help="One table; left out: all of them.")]

SIZES = {
    "table": "Table",
    "rows": "Rows, about",
    "dead": "Dead rows",
    "table_bytes": "Rows take",
    "index_bytes": "Indexes",
    "total_bytes": "Together",
    "vacuumed": "Vacuumed",
}
TREATED = {"table": "Table", "bytes_before": "Before", "bytes_after": "After", "seconds": "Seconds"}


@app.command("sizes")
def show_sizes(as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """How large the database and each table is, and when it was vacuumed."""
    from dataclasses import asdict

    from allocator.cli import admin, output
    from allocator.cli.units import in_words
    from allocator.upkeep import tables

    async def work(connection: "Connection") -> None:
        found = await tables.sizes(connection)
        if as_json:
            return output.print_json(asdict(found))
        rows = [_in_words(asdict(each)) for each in found.tables]
        output.show_rows(rows, SIZES, now=await admin.clock(connection), as_json=False)
        output.say(f"{found.database} has {in_words(found.bytes)} altogether.")

    run_on_database(work, data_dir, settings)


@app.command("vacuum")
def vacuum(
    table: Table = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="Give room back to the disk. Nobody can use a table while it is written anew."),
    ] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Remove dead rows and renew the statistics. PostgreSQL does so by itself; this does it now.

    Example: `lablink db vacuum events`
    """
    from allocator.cli.long_runs import shown_progress
    from allocator.upkeep import tables

    async def work(connection: "Connection") -> None:
        with shown_progress() as tell:
            treated = await tables.vacuum(connection, table, tell, full=full)
        _show_treated(treated, as_json)

    _on_tables(work, data_dir, settings)


@app.command("reindex")
def reindex(table: Table = None, as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """Build the indexes anew, while they are in use. Interrupted, it leaves the old ones.

    Example: `lablink db reindex leases`
    """
    from allocator.cli.long_runs import shown_progress
    from allocator.upkeep import tables

    async def work(connection: "Connection") -> None:
        with shown_progress() as tell:
            treated = await tables.reindex(connection, table, tell)
        _show_treated(treated, as_json)

    _on_tables(work, data_dir, settings)


def _on_tables(work: "Work", data_dir: "Path | None", settings: list[str] | None) -> None:
    from allocator.cli.failures import NotThere
    from allocator.upkeep.tables import NoSuchTable

    try:
        run_on_database(work, data_dir, settings)
    except NoSuchTable as error:
        raise NotThere(str(error)) from error


def _show_treated(treated: "list[Treated]", as_json: bool) -> None:
    from dataclasses import asdict

    from allocator.cli import output

    rows = [asdict(each) for each in treated]
    output.show_rows(rows if as_json else map(_in_words, rows), TREATED, as_json=as_json)


def _in_words(row: dict[str, Any]) -> dict[str, Any]:
    """The row with bytes and seconds as a person reads them."""
    from allocator.cli.units import in_words

    words = {key: in_words(value) for key, value in row.items() if "bytes" in key}
    return row | words | {key: f"{value:.2f}" for key, value in row.items() if key == "seconds"}

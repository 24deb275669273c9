"""`lablink pools`: how large each kind of machine is, and whether it serves anybody."""

from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli.options import CONTEXT, DataDir, Json, Settings, run_on_database

if TYPE_CHECKING:
    from allocator.cli.pool_questions import Row
    from client.network import Connection

app = typer.Typer(help="See the pools, pause one, or let it go on.", **CONTEXT)

Name = Annotated[str, typer.Argument(metavar="POOL", help="See `lablink pools list`.")]

COLUMNS = {
    "name": "Pool",
    "free": "Free",
    "lent": "Lent",
    "coming": "Coming",
    "waiting": "Waiting",
    "wanted": "Wanted",
    "size": "Allowed",
    "state": "State",
    "hours": "Hours",
    "money": "Spent",
}


@app.command("list")
def list_pools(as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """Each pool: its machines, how many are wanted and allowed, who waits, what comes next, and what is spent.

    Example: `lablink pools list --json`
    """
    from allocator.cli import output, pool_questions

    async def work(connection: "Connection") -> None:
        rows = await pool_questions.pools(connection)
        output.show_rows(rows if as_json else [_shown(row) for row in rows], COLUMNS, as_json=as_json)

    run_on_database(work, data_dir, settings)


@app.command("pause")
def pause(name: Name, as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """Lend no machine of a pool, and let none come or go. Who has one keeps it; who asks waits as long as it takes.

    Example: `lablink pools pause default`
    """
    _pause(
        name,
        True,
        f"{name} is paused. Who asks waits. Let it go on: lablink pools resume {name}",
        as_json,
        data_dir,
        settings,
    )


@app.command("resume")
def resume(name: Name, as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """Let a pool go on, also one that stopped growing because machines did not come. Who waited is served first.

    Example: `lablink pools resume default`
    """
    _pause(name, False, f"{name} goes on.", as_json, data_dir, settings)


def _shown(row: "Row") -> "Row":
    """A pool as a line of the table."""
    most = row["max_machines"]
    size = "by hand" if most is None else f"{row['min_machines']} to {most}"
    state = "paused" if row["paused"] else row["stopped"] or "open"
    return {**row, "size": size, "state": state, "money": _money(row)}


def _money(row: "Row") -> str | None:
    """What the pool's leases cost this month, of how much; None for one without a price."""
    if row["spent"] is None:
        return None
    spent = f"{row['spent']:.2f}" if row["budget"] is None else f"{row['spent']:.2f} of {row['budget']:.2f}"
    return f"{spent} {row['currency']}"


def _pause(name: str, paused: bool, told: str, as_json: bool, data_dir: DataDir, settings: Settings) -> None:
    from allocator.cli import output, pool_questions

    async def work(connection: "Connection") -> None:
        await pool_questions.pause_pool(connection, name, paused=paused)
        output.show_change({"name": name, "paused": paused}, told, as_json=as_json)

    run_on_database(work, data_dir, settings)

"""`lablink db`: the database itself: how to reach it, which version it has, how it is and what keeps it safe."""

from typing import Annotated

import typer

from allocator.cli.db import activity, archives, backups, checks, move, tables, versions
from allocator.cli.options import CONTEXT, DataDir, Settings

app = typer.Typer(help="Reach the database with psql; bring it to a version; keep its data safe.", **CONTEXT)

SUBJECTS = {
    "Roles, tables and their version": versions,
    "Is it well, and set up well": checks,
    "Who is connected, and what they do": activity,
    "Tables": tables,
    "Backups": backups,
    "The history's old months": archives,
    "Another server": move,
}
"""The parts, by what they stand under in `lablink db --help`."""


@app.command("url")
def print_url(data_dir: DataDir = None, settings: Settings = None) -> None:
    """Print the owner's connection string. It holds the password: keep it out of logs and shared screens.

    Example: `psql "$(lablink db url)"`
    """
    from allocator.cli.database import owner_dsn

    print(owner_dsn(data_dir, settings or []))


@app.command("shell", context_settings={"ignore_unknown_options": True})
def open_shell(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[PSQL-ARGUMENTS]", help="For psql itself.")] = None,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Open psql as the owner. Illegal changes are refused with a hint; legal ones do all that the web page would do.

    Examples:

    - `lablink db shell`
    - `lablink db shell -c "SELECT hostname, status FROM vms"`
    """
    from allocator.cli import psql
    from allocator.cli.database import reachable_dsn

    psql.become(reachable_dsn(data_dir, settings or []), arguments or [])


for subject, part in SUBJECTS.items():
    for each in (*part.app.registered_commands, *part.app.registered_groups):
        each.rich_help_panel = subject
    app.add_typer(part.app)

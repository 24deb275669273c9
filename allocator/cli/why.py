"""`lablink why`: which conditions hold, which do not, and what happens next."""

from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli.options import DataDir, Json, Settings, run_on_database

if TYPE_CHECKING:
    from client.network import Connection

COLUMNS = {"mark": "", "what": "Condition", "detail": "Detail"}
MARKS = {True: "✓", False: "✗", None: "→"}

What = Annotated[
    str,
    typer.Argument(
        metavar="LEASE|VM|POOL", help="A lease's id or its holder's e-mail, a machine's name, or a pool's name."
    ),
]


def why(name: What, as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """Say why somebody waits, a machine is not lent, or a lease is where it is; and what happens next, and when.

    Examples:

    - `lablink why ada@example.org`
    - `lablink why vm-3`
    - `lablink why default --json`
    """
    from allocator.cli import admin, output

    async def work(connection: "Connection") -> None:
        rows = await admin.why(connection, name)
        if as_json:
            output.print_json(rows)
        else:
            output.show_rows([{**row, "mark": MARKS[row["holds"]]} for row in rows], COLUMNS, as_json=False)

    run_on_database(work, data_dir, settings)

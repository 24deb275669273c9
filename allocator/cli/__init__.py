"""The command `lablink`: what admins and ops type. Heavy modules are imported by the command that needs them."""

import sys
from typing import Annotated

import typer

from allocator.cli import db, events, leases, serve, up, verify, vms
from allocator.cli.options import CONTEXT

EPILOG = """
Start here:  lablink up

Exit codes: 0 done · 1 refused or failed · 2 wrong command line or configuration · 3 the database does not answer ·
4 no such thing · 130 interrupted
"""

INTERRUPTED = 130

app = typer.Typer(
    name="lablink",
    help="Lend a machine from a pool to a person: at once, safely, and explaining every second of it.",
    epilog=EPILOG,
    **CONTEXT,
)
app.command("up")(up.up)
app.command("serve")(serve.serve)
app.command("verify")(verify.verify)
app.command("events")(events.show_events)
app.add_typer(vms.app, name="vms")
app.add_typer(leases.app, name="leases")
app.add_typer(db.app, name="db")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"lablink {version('lablink')}")
        raise typer.Exit


@app.callback()
def lablink(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Lend a machine from a pool to a person: at once, safely, and explaining every second of it."""


def main() -> None:
    """Run the command line; every expected failure is one sentence on standard error and an exit code."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        from allocator.cli.failures import exit_code_of
        from allocator.cli.output import complain

        code = exit_code_of(error)
        if code is None:
            raise
        complain(str(error))
        sys.exit(code)

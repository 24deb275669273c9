"""The command `lablink`: what admins and ops type. Heavy modules are imported by the command that needs them."""

from typing import Annotated

import typer

from allocator.cli import (
    admins,
    db,
    doctor,
    events,
    fleet,
    groups,
    leases,
    pools,
    rehearse,
    schedules,
    serve,
    up,
    verify,
    vms,
    why,
)
from allocator.cli.options import CONTEXT

EPILOG = """
Start here:  lablink up

Exit codes: 0 done · 1 refused or failed · 2 wrong command line or configuration · 3 the database does not answer ·
4 no such thing · 130 interrupted
"""

app = typer.Typer(
    name="lablink",
    help="Lend a machine from a pool to a person: at once, safely, and explaining every second of it.",
    epilog=EPILOG,
    **CONTEXT,
)
app.command("up")(up.up)
app.command("serve")(serve.serve)
app.command("verify")(verify.verify)
app.command("doctor")(doctor.doctor)
app.command("events")(events.show_events)
app.command("why")(why.why)
app.command("rehearse")(rehearse.rehearse_workshop)
app.add_typer(vms.app, name="vms")
app.add_typer(leases.app, name="leases")
app.add_typer(db.app, name="db")
app.add_typer(pools.app, name="pools")
app.add_typer(schedules.app, name="schedules")
app.add_typer(fleet.app, name="fleet")
app.add_typer(groups.app, name="groups")
app.add_typer(admins.app, name="admins")


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

"""`lablink leases`: who has or wants a machine."""

from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli.options import CONTEXT, DataDir, Json, Settings, run_on_database

if TYPE_CHECKING:
    from client.network import Connection

app = typer.Typer(help="List leases, look into one, end one.", **CONTEXT)

Lease = Annotated[
    str,
    typer.Argument(
        metavar="LEASE", help="Its id or the beginning of it, or the e-mail of whoever has it or had it last."
    ),
]

COLUMNS = {
    "id": "Lease",
    "email": "Person",
    "status": "Status",
    "position": "Place",
    "likely_at": "Likely served",
    "needs_line": "Asked for a line",
    "hostname": "VM",
    "crd_command": "Command",
    "created_at": "Asked",
    "ends_at": "Ends",
    "ended_at": "Ended",
    "exit_code": "Exit code",
    "failure": "Failure",
}
FACTS = COLUMNS | {
    "told": "Its holder reads",
    "sure_at": "In nine of ten cases",
    "held_back": "Held back",
    "passed_over": "Passed over",
    "kept_until": "Kept",
    "idle_until": "Ends unused",
    "moves": "Moves",
    "kind": "Kind",
    "pool": "Pool",
    "assigned_at": "Assigned",
    "active_at": "Active",
    "epoch": "Epoch",
    "output": "Output",
}
NONE = "Nobody has a machine or waits for one. See the past ones too: lablink leases list --all"


@app.command("list")
def list_leases(
    everything: Annotated[bool, typer.Option("--all", "-a", help="Also those that are over; newest first.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 200,
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Who has a machine and who waits for one, the longest waiting first.

    Example: `lablink leases list --all --json`
    """
    from allocator.cli import admin, output

    async def work(connection: "Connection") -> None:
        rows, now = await admin.leases(connection, everything=everything, limit=limit), await admin.clock(connection)
        output.show_rows(rows, COLUMNS, now=now, empty=NONE, as_json=as_json)

    run_on_database(work, data_dir, settings)


@app.command("show")
def show_lease(name: Lease, as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """One lease in full: its steps, its output, what happened to it.

    Example: `lablink leases show ada@example.org`
    """
    from allocator.cli import admin, output
    from allocator.failure_words import FAILURES, LEFT_IDLE, TROUBLES

    async def work(connection: "Connection") -> None:
        lease, now = await admin.lease(connection, name), await admin.clock(connection)
        events = await admin.newest_events(connection, 50, lease_id=lease["id"])
        trouble = lease["trouble"] if lease["status"] in ("queued", "assigned") else None
        told = LEFT_IDLE if lease["left_idle"] else FAILURES.get(lease["failure"] or "") or TROUBLES.get(trouble or "")
        output.show_thing({**lease, "told": told}, FACTS, events, now=now, as_json=as_json)

    run_on_database(work, data_dir, settings)


@app.command("end")
def end_lease(name: Lease, as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """End a lease, whatever step it is at; its machine cleans itself and goes to whoever is next.

    Example: `lablink leases end 3f2a`
    """
    from allocator.cli import admin, output

    async def work(connection: "Connection") -> None:
        lease = await admin.lease(connection, name)
        status = await admin.end_lease(connection, lease["id"])
        was = " already" if lease["ended_at"] else ""
        sentence = f"The lease {lease['id']} of {lease['email']} is {status}{was}."
        output.show_change({"id": lease["id"], "status": status}, sentence, as_json=as_json)

    run_on_database(work, data_dir, settings)

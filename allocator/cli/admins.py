"""`lablink admins`: who may do over the HTTP API what ops type here."""

from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli.options import CONTEXT, DataDir, Json, Settings, run_on_database

if TYPE_CHECKING:
    from client.network import Connection

app = typer.Typer(help="Let somebody work on the fleet over the HTTP API, or no more.", **CONTEXT)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A person or a program; the history says admin:NAME of what they do.")
]

COLUMNS = {
    "name": "Admin",
    "created_at": "Added",
    "expires_at": "Until",
    "last_used_at": "Last used",
    "expired": "Expired",
}
NONE = "Nobody is an admin over the HTTP API. Add one: lablink admins add NAME"


@app.command("add")
def add(
    name: Name,
    days: Annotated[int, typer.Option("--days", min=1, max=3650, help="For how long.")] = 90,
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Make a token for an admin. It is shown this once: only its hash is kept.

    Example: `lablink admins add ada --days 30 > token`
    """
    import secrets

    from allocator.cli import admin, output

    async def work(connection: "Connection") -> None:
        token = secrets.token_urlsafe(32)
        until = await admin.add_admin(connection, name, token, days)
        output.show_change({"name": name, "token": token, "expires_at": until}, token, as_json=as_json)
        if not as_json:
            output.tell(f"Good until {until:%Y-%m-%d}, and not shown again. Send it as: Authorization: Bearer TOKEN")

    run_on_database(work, data_dir, settings)


@app.command("list")
def list_admins(as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """Whoever may, since when, until when, and when they last did.

    Example: `lablink admins list --json`
    """
    from allocator.cli import admin, output

    async def work(connection: "Connection") -> None:
        rows = await admin.admins(connection)
        output.show_rows(rows, COLUMNS, now=await admin.clock(connection), empty=NONE, as_json=as_json)

    run_on_database(work, data_dir, settings)


@app.command("remove")
def remove(name: Name, as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """Make an admin's token worth nothing, from now on. What they began goes on.

    Example: `lablink admins remove ada`
    """
    from allocator.cli import admin, output

    async def work(connection: "Connection") -> None:
        await admin.remove_admin(connection, name)
        output.show_change({"name": name}, f"{name} is no admin of the HTTP API any more.", as_json=as_json)

    run_on_database(work, data_dir, settings)

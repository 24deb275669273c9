"""`lablink db move`: the database, to another server."""

from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli.options import DataDir, Json, Settings

if TYPE_CHECKING:
    from pathlib import Path

    from allocator.upkeep.move import Moved
    from allocator.upkeep.target import Target

app = typer.Typer()

To = Annotated[
    str,
    typer.Option(
        metavar="REFERENCE",
        help="Where the connection string of the new server's superuser (RDS: master user) is: env:NAME, file:PATH or "
        "aws:NAME.",
    ),
]
Superuser = Annotated[
    str | None,
    typer.Option(
        metavar="REFERENCE",
        help="Where that of this server's superuser is. Without it the machines' passwords stay behind, and they have "
        "to be invited again.",
    ),
]


@app.command("move")
def move(
    to: To, superuser: Superuser = None, as_json: Json = False, data_dir: DataDir = None, settings: Settings = None
) -> None:
    """Move the database to another server, of this version of PostgreSQL or a newer one, with all that is in it.

    Nothing is accepted meanwhile. At the end the database here loses its name, so that nobody goes on with it; until
    then nothing has changed, whatever happens. Leases go on.

    Example: `lablink db move --to env:NEW_DSN --superuser env:SUPERUSER_DSN`
    """
    import asyncio
    from dataclasses import asdict

    from allocator.cli.db.superusers import superuser_of
    from allocator.cli.db.target import target_of
    from allocator.cli.output import print_json

    target, there = asyncio.run(target_of(to, data_dir, settings or []))
    above = asyncio.run(superuser_of(superuser, data_dir, settings or [])) if superuser else None
    moved = _moved(target, above, data_dir, settings)
    if as_json:
        return print_json(asdict(moved) | {"set": there})
    _tell(moved, there)


def _moved(target: "Target", above: str | None, data_dir: "Path | None", settings: list[str] | None) -> "Moved":
    from allocator.cli.long_runs import run_operation
    from allocator.operations import Operation
    from allocator.upkeep.move import move as upkeep_move

    async def work(dsn: str, operation: Operation) -> "Moved":
        return await upkeep_move(dsn, target, operation, above)

    return run_operation("move", work, data_dir, settings)


def _tell(moved: "Moved", there: list[str]) -> None:
    import shlex

    from allocator.cli.output import say

    counted = f"machines: {moved.vms}, live leases: {moved.leases}"
    say(f"The database is on the new server now (PostgreSQL {moved.server_version}), with all of it; {counted}.")
    say("Start the allocators with: lablink serve " + " ".join(f"--set {shlex.quote(each)}" for each in there))
    for statement in moved.refused:
        say(f"Refused by the new server, and not needed: {statement}")
    if moved.vms_to_invite:
        say(f"To be invited again, for their passwords could not be read: {', '.join(moved.vms_to_invite)}.")
    say("The other machines go on as soon as they reach it: the address in their credential.json must lead there.")
    say(f"Here it is {moved.kept_as}, which nobody uses. Drop it when you are sure: DROP DATABASE {moved.kept_as};")
    say(f"The way back, here as the superuser, loses what happens there from now on: {moved.back}")

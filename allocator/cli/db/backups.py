"""`lablink db backup, backups, restore, rehearse`: the database's data, kept elsewhere and brought back."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli.options import CONTEXT, DataDir, Json, Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from allocator.operations import Tell
    from allocator.upkeep.backup import Backup
    from allocator.upkeep.rehearse import Rehearsal
    from allocator.upkeep.restore import Restored
    from allocator.upkeep.storage import Storage

    Duty = Callable[[str, Storage, str, Tell], Awaitable[Rehearsal]]

COLUMNS = {
    "name": "Name",
    "taken_at": "Made",
    "megabytes": "MB",
    "version": "Version",
    "vms": "VMs",
    "leases": "Leases",
    "events": "Events",
}
STEPS = {"step": "Step", "version": "Version", "seconds": "Seconds"}
NOWHERE = """Where are the backups? Give --to (or --from) DIR or s3://BUCKET/PREFIX, or set backup.to."""

Place = "DIR|s3://…"
From = Annotated[
    str | None,
    typer.Option("--from", metavar=Place, help="Where the backups are. Left out: backup.to, or DATA-DIR/backups."),
]
To = Annotated[
    str | None,
    typer.Option("--to", metavar=Place, help="Where it goes. Left out: backup.to, or DATA-DIR/backups."),
]
KeepDays = Annotated[
    int | None, typer.Option("--keep-days", min=1, help="Then remove older ones. Left out: backup.keep_days.")
]
Force = Annotated[bool, typer.Option("--force", help="Also when people or machines are using the database.")]
Name = Annotated[str, typer.Argument(help='The name of a backup, or "latest".')]

NOTHING_PENDING = "No migration is pending, for the backup is of version {}; its functions were made anew."

app = typer.Typer()
backup_app = typer.Typer(**CONTEXT | {"no_args_is_help": False})
app.add_typer(backup_app, name="backup", invoke_without_command=True)


@backup_app.callback()
def backup(
    context: typer.Context,
    to: To = None,
    keep_days: KeepDays = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Make a backup: all tables but codes, PINs and invitations, with a manifest and a checksum beside it.

    It is there when it is complete, and otherwise not at all. `lablink db backup verify NAME` tries it out.

    Examples:

    - `lablink db backup --to /srv/backups --keep-days 30`
    - `lablink db backup --to s3://my-bucket/lablink`
    """
    if context.invoked_subcommand:
        return
    from allocator.cli.output import show_change

    storage, days = _storage(to, data_dir, settings, keep_days)
    made = _made(storage, days, data_dir, settings)
    row = _row(made)
    show_change(
        row,
        f"{storage} has the backup {made.name}: {row['megabytes']} MB. Try it out: lablink db backup verify latest",
        as_json=as_json,
    )


@backup_app.command("verify")
def verify(
    name: Name, source: From = None, as_json: Json = False, data_dir: DataDir = None, settings: Settings = None
) -> None:
    """Try a backup out: its checksum, all its rows in a scratch database, and every promise that rows can break.

    Exits with 0 when all is well, and with 1 and a line for each thing that is not.

    Example: `lablink db backup verify latest`
    """
    from allocator.upkeep import rehearse as upkeep

    storage = _source(source, data_dir, settings)
    _show(_rehearsal("backup verify", upkeep.verify, storage, name, data_dir, settings), as_json)


@app.command("rehearse")
def rehearse(
    name: Name, source: From = None, as_json: Json = False, data_dir: DataDir = None, settings: Settings = None
) -> None:
    """Try this version's migrations out on a backup: in a scratch database, up, down and up, with times.

    Exits with 0 when every row survived, and with 1 and a line for each thing that did not.

    Example: `lablink db rehearse latest`
    """
    from allocator.upkeep import rehearse as upkeep

    storage = _source(source, data_dir, settings)
    _show(_rehearsal("rehearse", upkeep.rehearse, storage, name, data_dir, settings), as_json)


@app.command("backups")
def show_backups(
    source: From = None, as_json: Json = False, data_dir: DataDir = None, settings: Settings = None
) -> None:
    """List the backups, oldest first."""
    import asyncio

    from allocator.cli.output import show_rows
    from allocator.upkeep.backup import backups

    storage = _source(source, data_dir, settings)
    rows = [_row(each) for each in asyncio.run(backups(storage))]
    show_rows(rows, COLUMNS, empty=f"{storage} has no backup yet.", as_json=as_json)


@app.command("restore")
def restore(
    name: Name,
    source: From = None,
    force: Force = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Replace the database by a backup. The one of before is kept under another name.

    Nothing is accepted meanwhile. Leases that were live in the backup fail, and every machine is cleaned before it is
    lent again. If anything goes wrong, nothing has changed.

    Example: `lablink db restore latest`
    """
    from dataclasses import asdict

    from allocator.cli.output import print_json

    storage = _source(source, data_dir, settings)
    restored = _restored(storage, name, force, data_dir, settings)
    if as_json:
        return print_json(asdict(restored))
    _tell(restored)


def _storage(
    given: str | None, data_dir: Path | None, settings: list[str] | None, keep_days: int | None = None
) -> "tuple[Storage, int | None]":
    """Where the backups are, and for how many days they are kept; what is given counts more than what is set."""
    from allocator.cli.database import settings_place
    from allocator.cli.failures import Misused
    from allocator.config import load_settings
    from allocator.upkeep.storage import storage_at

    directory = settings_place(data_dir, settings or [])
    backup = load_settings(settings or [], directory).backup
    place = given or backup.to or (str(directory / "backups") if directory else None)
    if place is None or given == "":  # --to "$VARIABLE" means somewhere, and this says nowhere
        raise Misused(NOWHERE)
    return storage_at(place), keep_days or backup.keep_days


def _source(given: str | None, data_dir: Path | None, settings: list[str] | None) -> "Storage":
    """Where backups are read. A directory that is named must be there: else it is another one that is meant."""
    from allocator.cli.failures import CommandFailed
    from allocator.upkeep.storage import Directory

    storage, _ = _storage(given, data_dir, settings)
    if given and isinstance(storage, Directory) and not storage.path.is_dir():
        raise CommandFailed(f"There is no directory {storage}. Say with --from where the backups are.")
    return storage


def _made(storage: "Storage", days: int | None, data_dir: Path | None, settings: list[str] | None) -> "Backup":
    from allocator.cli.long_runs import run_operation
    from allocator.operations import Operation
    from allocator.upkeep.backup import back_up

    async def work(dsn: str, operation: Operation) -> "Backup":
        made = await back_up(dsn, storage, operation.progress, days)
        operation.result = made.summary()
        return made

    return run_operation("backup", work, data_dir, settings)


def _restored(
    storage: "Storage", name: str, force: bool, data_dir: Path | None, settings: list[str] | None
) -> "Restored":
    from allocator.cli.long_runs import run_operation
    from allocator.operations import Operation
    from allocator.upkeep.restore import restore as upkeep_restore

    async def work(dsn: str, operation: Operation) -> "Restored":
        return await upkeep_restore(dsn, storage, name, operation, force=force)

    return run_operation("restore", work, data_dir, settings)


def _rehearsal(
    kind: str, duty: "Duty", storage: "Storage", name: str, data_dir: Path | None, settings: list[str] | None
) -> "Rehearsal":
    from dataclasses import asdict

    from allocator.cli.long_runs import run_operation
    from allocator.operations import Operation

    async def work(dsn: str, operation: Operation) -> "Rehearsal":
        shown = await duty(dsn, storage, name, operation.progress)
        operation.result, operation.problem = asdict(shown), shown.problem
        return shown

    return run_operation(kind, work, data_dir, settings)


def _row(backup: "Backup") -> dict[str, object]:
    """A backup as the commands show it."""
    from dataclasses import asdict

    people = {name: backup.rows.get(f"public.{name}") for name in ("vms", "leases")}
    events = sum(rows for table, rows in backup.rows.items() if f"{table}_".startswith("public.events_"))
    return asdict(backup) | {"megabytes": round(backup.size / 1e6, 1), "events": events} | people


def _show(rehearsal: "Rehearsal", as_json: bool) -> None:
    """Print what a rehearsal showed; the exit code says whether it went well."""
    from dataclasses import asdict

    from allocator.cli.output import print_json, say, show_rows

    shown = asdict(rehearsal)
    if as_json:
        print_json(shown)
    else:
        show_rows(shown["steps"], STEPS, as_json=False)
        for problem in rehearsal.problems:
            say(f"Wrong: {problem}")
        if rehearsal.pending == []:
            say(NOTHING_PENDING.format(rehearsal.steps[0].version))
        say("It is not as it must be." if rehearsal.problems else f"{rehearsal.backup} is as it must be.")
    if rehearsal.problems:
        raise typer.Exit(1)


def _tell(restored: "Restored") -> None:
    from allocator.cli.output import say

    say(f"The database is that of {restored.backup}, at version {restored.version}; all connect again by themselves.")
    if restored.leases_failed:
        say(f"Leases that were live in it have failed ({restored.leases_failed}): their people are told to ask again.")
    if restored.vms_to_invite:
        say(f"To be invited again, for this server does not have their roles: {', '.join(restored.vms_to_invite)}.")
    if restored.deploy_again:
        say("Machines may make large objects in it until lablink db deploy (or the next lablink up) takes that away.")
    say(f"The database of before is {restored.kept_as}. Drop it when you are sure: DROP DATABASE {restored.kept_as};")

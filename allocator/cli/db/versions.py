"""`lablink db deploy, migrate, downgrade, stamp, sql, history`: roles, database and tables, and their version."""

from typing import Annotated

import typer

from allocator.cli.options import DataDir, Json, Settings

app = typer.Typer()

COLUMNS = {"version": "Version", "description": "What it brought", "applied": "Applied"}


@app.command("deploy")
def deploy(
    superuser: Annotated[
        str,
        typer.Option(
            metavar="REFERENCE", help="Where the superuser's connection string is: env:NAME, file:PATH or aws:NAME."
        ),
    ],
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Make LabLink's roles, its database and the tables on a server. May be repeated; also sets changed passwords.

    The superuser, or a managed service's master user, is needed for nothing else.

    Example: `lablink db deploy --set database.host=127.0.0.1 --superuser env:SUPERUSER_DSN`
    """
    import asyncio

    from allocator.cli.db.deploy import deploy as run
    from allocator.cli.output import say

    deployed = asyncio.run(run(superuser, data_dir, settings or []))
    for statement in deployed.refused:
        say(f"Refused by the server, and not needed: {statement}")
    say(f"The database is at version {deployed.version}.")


@app.command("migrate")
def migrate(
    sql: Annotated[bool, typer.Option("--sql", help="Only print the statements, for running them by hand.")] = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Bring the database to the newest version and renew its functions. May be repeated; all of it happens or nothing.

    With --sql nothing happens, and what is printed is for the version that the database has now.

    Example: `lablink db migrate --sql > migration.sql`
    """
    from allocator import migrate as migrations
    from allocator.cli.database import asked
    from allocator.cli.output import say
    from allocator.cli.waiting import say_for_whom

    if sql:
        steps = asked(migrations.history, data_dir, settings or [])
        since = [step.version for step in steps if step.applied][-1:] or [migrations.NOTHING]
        return print(migrations.offline_sql(*since))
    reached = asked(lambda dsn: migrations.upgrade(dsn, say_for_whom), data_dir, settings or [])
    say(f"The database is at version {reached}.")


@app.command("downgrade")
def downgrade(
    version: Annotated[str, typer.Argument(help='Where to go; "-1" is one back, "base" an empty database.')],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Go back to an earlier version. What only the later ones can hold is lost: make a backup first.

    Example: `lablink db downgrade -- -1`
    """
    from allocator import migrate as migrations
    from allocator.cli.database import asked
    from allocator.cli.output import ask, say
    from allocator.cli.waiting import say_for_whom

    if not yes:
        ask(f"Go back to version {version}, and lose what only later versions hold?")
    reached = asked(lambda dsn: migrations.downgrade(dsn, version, say_for_whom), data_dir, settings or [])
    say(f"The database is at version {reached}." if reached else "The database is empty.")


@app.command("stamp")
def stamp(
    version: Annotated[str, typer.Argument(help='The version that its tables have; "base" if they are none of ours.')],
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Write down which version the database has, and change nothing else: after its tables were made by hand.

    Example: `lablink db stamp head`
    """
    from allocator import migrate as migrations
    from allocator.cli.database import asked
    from allocator.cli.output import say

    reached = asked(lambda dsn: migrations.stamp(dsn, version), data_dir, settings or [])
    say(f"The database is said to be at version {reached}." if reached else "The database is said to be empty.")


@app.command("sql")
def print_sql(
    since: Annotated[
        str, typer.Option("--from", metavar="VERSION", help="The version that the database has.")
    ] = "base",
) -> None:
    """Print the statements that bring a database, an empty one or --from a version, to the newest version.

    For a DBA to read or to run by hand; no database is asked.

    Examples:

    - `lablink db sql > lablink.sql`
    - `lablink db sql --from 3 > upgrade.sql`
    """
    from allocator.migrate import offline_sql

    print(offline_sql(since))


@app.command("history")
def show_history(as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """Every version of the database, oldest first, and whether this one has it."""
    from dataclasses import asdict

    from allocator.cli import output
    from allocator.cli.database import asked
    from allocator.migrate import history

    rows = [asdict(step) for step in asked(history, data_dir, settings or [])]
    output.show_rows(rows, COLUMNS, empty="There is no version yet.", as_json=as_json)

"""`lablink db verify, test, tune, hba, watch-logs`: whether the database is as it must be."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli.options import DataDir, Json, Settings
from allocator.cli.units import seconds, size

if TYPE_CHECKING:
    from allocator.upkeep.trial import Step

app = typer.Typer()

STEPS = {"name": "Step", "done": "Worked", "milliseconds": "ms", "why": "Why not"}

Cidrs = list[str] | None


class Disk(StrEnum):
    """What the data lies on."""

    ssd = "ssd"
    hdd = "hdd"


class Form(StrEnum):
    """How settings are printed."""

    table = "table"
    sql = "sql"
    conf = "conf"


@app.command("verify")
def verify(as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """Check all that `lablink verify` does, and the server around the database: its settings, room, doors and TLS.

    Exits with 0 when all is well, with 1 and a line for each thing that is not. Safe to run at any time.

    Example: `lablink db verify && echo all is well`
    """
    from allocator.cli.database import asked, settings_place
    from allocator.cli.long_runs import shown_progress
    from allocator.cli.verify import tell_findings
    from allocator.config import load_settings
    from allocator.upkeep.verify import findings

    given = settings or []
    opened = load_settings(given, settings_place(data_dir, given)).database.all_connections
    with shown_progress() as tell:
        found = asked(lambda dsn: findings(dsn, opened, tell=tell), data_dir, given)
    tell_findings(found, as_json)


@app.command("test")
def walk(
    full: Annotated[
        bool, typer.Option("--full", help="Also lend a machine that is made for it, and undo that.")
    ] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Walk the whole path through the database, step by step, with the time that each took.

    Reads only. With --full also a request on a pool of its own, as owner, service and machine; all of it is undone, but
    for what the history says of it.

    Example: `lablink db test --full`
    """
    from dataclasses import asdict

    from allocator.cli import output
    from allocator.cli.db.trial import steps

    taken: list[Step] = steps(full, data_dir, settings or [])
    rows = [asdict(each) | {"milliseconds": round(each.milliseconds, 1)} for each in taken]
    output.show_rows(rows, STEPS, as_json=as_json)
    if not all(each.done for each in taken):
        raise typer.Exit(1)


@app.command("tune")
def tune(
    ram: Annotated[str, typer.Option("--ram", metavar="SIZE", help="Memory of the server's machine, for example 2GB.")],
    connections: Annotated[
        int | None,
        typer.Option("--connections", min=10, max=10_000, help="Left out: enough for the machines that there are."),
    ] = None,
    storage: Annotated[Disk, typer.Option("--storage", help="What the data lies on.")] = Disk.ssd,
    form: Annotated[Form, typer.Option("--as", help="A comparison, ALTER SYSTEM statements, or a file.")] = Form.table,
    apply: Annotated[bool, typer.Option("--apply", help="Set what differs; needs --superuser.")] = False,
    superuser: Annotated[
        str | None,
        typer.Option("--superuser", metavar="REFERENCE", help="Where its connection string is: env:NAME, file:PATH …"),
    ] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """What PostgreSQL should be set to on a machine of that size, why, and what it is set to now.

    A managed service refuses --apply: give its parameter group the values instead.

    Example: `lablink db tune --ram 2GB --as conf > lablink.conf`
    """
    from allocator.cli.db.tuning import tuned
    from allocator.cli.failures import Misused

    if apply and not superuser:
        raise Misused("--apply needs --superuser: where the connection string of a superuser is, as env:NAME.")
    tuned(size(ram), connections, storage, form, superuser if apply else None, as_json, data_dir, settings or [])


@app.command("hba")
def hba(
    cidr: Annotated[Cidrs, typer.Option("--cidr", metavar="CIDR", help="A network that machines are in.")] = None,
    service: Annotated[Cidrs, typer.Option("--service", metavar="CIDR", help="Where the allocator is.")] = None,
    owner: Annotated[Cidrs, typer.Option("--owner", metavar="CIDR", help="Where admins are.")] = None,
    reader: Annotated[Cidrs, typer.Option("--reader", metavar="CIDR", help="Where dashboards are.")] = None,
    superuser: Annotated[str, typer.Option("--superuser", help="Name of the superuser.")] = "postgres",
    settings: Settings = None,
) -> None:
    """Print a pg_hba.conf for a server of your own: SCRAM passwords, nothing from elsewhere without TLS, role by role.

    Each network may be given more than once; a role without one may only come from the server's own machine.

    Example: `lablink db hba --cidr 10.0.0.0/16 --service 10.0.1.5/32 > pg_hba.conf`
    """
    from allocator.cli.failures import Misused
    from allocator.config import load_settings
    from allocator.upkeep.hba import Networks, NotANetwork, pg_hba

    networks = Networks(cidr or [], service or [], owner or [], reader or [])
    try:
        print(pg_hba(networks, load_settings(settings or []).database.name, superuser), end="")
    except NotANetwork as error:
        raise Misused(str(error)) from error


@app.command("watch-logs")
def watch_logs(
    log_group: Annotated[str, typer.Option("--log-group", help="For example /aws/rds/instance/NAME/postgresql.")],
    topic: Annotated[str, typer.Option("--topic", metavar="ARN", help="The SNS topic that is told.")],
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="How far the first look goes back.")] = "15m",
    every: Annotated[str, typer.Option("--every", metavar="TIME", help="How long between two looks.")] = "60s",
    once: Annotated[bool, typer.Option("--once", help="Look once, for cron.")] = False,
    state: Annotated[
        Path | None, typer.Option("--state", metavar="FILE", help="Where it remembers how far it has read.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Read PostgreSQL's log in CloudWatch and tell an SNS topic what looks suspicious: failed logins, denied
    permissions, changed roles and grants, superusers, dropped tables, deletes of everything.

    One message a look, in which the same thing stands once with its count and without literals. It goes on where it
    was, also after a restart.

    Example: `lablink db watch-logs --log-group /aws/rds/instance/lablink/postgresql --topic arn:aws:sns:… --once`
    """
    from allocator.cli.db.watch_logs import watch

    watch(log_group, topic, seconds(since), None if once else seconds(every), state, as_json)

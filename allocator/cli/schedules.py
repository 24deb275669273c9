"""`lablink schedules`: when a pool has how many machines."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli.options import CONTEXT, DataDir, Json, Settings, run_on_database

if TYPE_CHECKING:
    from allocator.cli.pool_questions import Hours, Row
    from client.network import Connection

app = typer.Typer(help="Have machines ready for a workshop, or on weekdays.", **CONTEXT)

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

Pool = Annotated[str, typer.Option("--pool", help="Whose machines.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="What the schedule is called: workshop.")]
Number = Annotated[int, typer.Option("--machines", min=0, max=100_000, help="How many the pool has then at least.")]
Starts = Annotated[datetime, typer.Option("--from", formats=["%H:%M"], metavar="HH:MM", help="When they are ready.")]
Ends = Annotated[
    datetime, typer.Option("--to", formats=["%H:%M"], metavar="HH:MM", help="Until when; the day after if earlier.")
]
Days = Annotated[list[str] | None, typer.Option("--days", help="Days of the week: mon-fri, or tue,thu.")]
Date = Annotated[datetime | None, typer.Option("--date", formats=["%Y-%m-%d"], help="Or the one date that it is for.")]
Zone = Annotated[str | None, typer.Option("--time-zone", help="By whose clocks: Europe/Berlin. Left out: the pool's.")]
EndsLeases = Annotated[bool, typer.Option("--end-leases", help="Leases end with it, too, after a warning.")]

COLUMNS = {
    "pool": "Pool",
    "name": "Schedule",
    "days": "Days",
    "starts_at": "From",
    "ends_at": "To",
    "time_zone": "Clocks of",
    "machines": "Machines",
    "ends_leases": "Ends leases",
    "made_from": "Begun next",
}
NONE = "Nothing is scheduled. Have machines ready: lablink schedules add --help"


def days_of(text: str) -> list[str]:
    """The days that `mon-fri` or `tue,thu` names, in order. Raises typer.BadParameter."""
    found: set[str] = set()
    for part in text.lower().split(","):
        first, _, last = part.strip().partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            raise typer.BadParameter(f"{part.strip()!r} is no day: write mon-fri, or tue,thu")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        found |= {DAYS[n % 7] for n in range(begin, end + 1 if end >= begin else end + 8)}
    return [day for day in DAYS if day in found]


@app.command("list")
def list_schedules(as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """Every schedule, and when machines are begun for it next: as long before as nine of ten boots took.

    Example: `lablink schedules list --json`
    """
    from allocator.cli import admin, output, pool_questions

    async def work(connection: "Connection") -> None:
        rows = await pool_questions.schedules(connection)
        if not as_json:
            rows = [_shown(row) for row in rows]
        output.show_rows(rows, COLUMNS, now=await admin.clock(connection), empty=NONE, as_json=as_json)

    run_on_database(work, data_dir, settings)


def _shown(row: "Row") -> "Row":
    """A schedule as a line of the table."""
    days = row["on_date"] or ", ".join(row["days"])
    return {**row, "days": days, "starts_at": row["starts_at"][:5], "ends_at": row["ends_at"][:5]}


@app.command("add")
def add(
    name: Name,
    machines: Number,
    starts: Starts,
    ends: Ends,
    days: Days = None,
    date: Date = None,
    pool: Pool = "default",
    time_zone: Zone = None,
    ends_leases: EndsLeases = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Have so many machines of a pool ready at a time. A pool whose machines nobody makes keeps those that it has.

    Examples:

    - `lablink schedules add weekdays --days mon-fri --from 8:00 --to 18:00 --machines 5`
    - `lablink schedules add workshop --date 2026-11-30 --from 9:00 --to 18:00 --machines 25 --end-leases`
    """
    from allocator.cli.pool_questions import Hours

    if (days is None) == (date is None):
        raise typer.BadParameter("give days or a date: --days mon-fri, or --date 2026-11-30")
    when = days_of(",".join(days)) if days else None, date.date() if date else None
    hours = Hours(*when, starts.time(), ends.time(), time_zone, ends_leases)
    run_on_database(lambda connection: _add(connection, pool, name, machines, hours, as_json), data_dir, settings)


async def _add(connection: "Connection", pool: str, name: str, machines: int, hours: "Hours", as_json: bool) -> None:
    """Write it down, and say when it is next."""
    from allocator.cli import output, pool_questions

    planned = await pool_questions.add_schedule(connection, pool, name, machines, hours)
    most = await pool_questions.most_machines(connection, pool)
    told = f"{name} is scheduled: {planned}." if planned else f"{name} is over: it has no time to come."
    output.show_change({"pool": pool, "name": name, "next": planned}, told, as_json=as_json)
    if machines and most is None:
        output.tell(f"Nobody makes machines for {pool}, whose max_machines is not set: it keeps those that it has.")
    elif machines > (most or 0):
        output.tell(f"{pool} has {most} machines at most, then too, as its max_machines says.")


@app.command("remove")
def remove(
    name: Name, pool: Pool = "default", as_json: Json = False, data_dir: DataDir = None, settings: Settings = None
) -> None:
    """Forget a schedule. Machines that nobody needs any more go after a while.

    Example: `lablink schedules remove workshop`
    """
    from allocator.cli import output, pool_questions

    async def work(connection: "Connection") -> None:
        await pool_questions.remove_schedule(connection, pool, name)
        output.show_change({"pool": pool, "name": name}, f"{name} is scheduled no more.", as_json=as_json)

    run_on_database(work, data_dir, settings)

"""`lablink rehearse`: a workshop before it happens."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allocator.cli.options import DataDir, Json, Settings
from allocator.cli.rehearse_options import Workshop, spread

if TYPE_CHECKING:
    from allocator.rehearsal.outcome import Rehearsed
    from allocator.rehearsal.plan import Plan
    from allocator.rehearsal.play import Progress

Pool = Annotated[
    str | None,
    typer.Option(
        metavar="POOL",
        help="A pool of your database: its terms are taken instead of --lease and --extend, and how long its leases "
        "and boots took instead of --use and --boot, as far as there are any.",
    ),
]


@spread
def rehearse_workshop(
    workshop: Workshop, pool: Pool = None, as_json: Json = False, data_dir: DataDir = None, settings: Settings = None
) -> None:
    """Play a workshop before it happens, hours of it in seconds: the real rules, under a clock that is set.

    It has a database of its own, on a PostgreSQL that is started for it, or on your server where --data-dir, --set or
    --pool says so; either is gone afterwards, also after Ctrl-C or SIGTERM.

    Examples:

    - `lablink rehearse --people 320 --arrive 60s --machines 250 --boot 5m`
    - `lablink rehearse --people 320 --machines 250 --deaths 10 --desktops 100 --lineless 5`
    - `lablink rehearse --people 320 --machines 250 --pool default --data-dir .lablink`
    """
    plan = workshop.plan()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # or it would remove nothing
    came = _played(plan, pool, data_dir, settings or [])
    show(came, workshop.people, as_json)


def _played(plan: "Plan", pool: str | None, data_dir: Any, settings: list[str]) -> "Rehearsed":
    """What comes of it, on the server that is meant or on one for this alone."""
    from allocator.cli.database import asked
    from allocator.cli.failures import explained
    from allocator.cli.output import tell
    from allocator.rehearsal.measured import like
    from allocator.rehearsal.play import rehearse
    from allocator.upkeep.scratch import scratch_database

    async def play(dsn: str) -> "Rehearsed":
        meant = await like(plan, dsn, pool) if pool else plan
        if pool:
            tell(f"Known of {pool}: how long leases ({len(meant.uses)}) and boots ({len(meant.boots)}) took there.")
        with shown(plan.people) as watch:
            async with scratch_database(dsn, "rehearsal") as stage:
                return await rehearse(stage, meant, watch)

    if pool or settings or data_dir:
        return asked(play, data_dir, settings)
    with explained("Try again."):
        return asyncio.run(_on_own_server(play))


async def _on_own_server(play: "Callable[[str], Coroutine[None, None, Rehearsed]]") -> "Rehearsed":
    """The same on a PostgreSQL that is stopped and removed afterwards."""
    import tempfile
    from pathlib import Path

    from allocator import bootstrap
    from allocator.local.postgres import running_server
    from allocator.rehearsal.stage import FLEETING

    with tempfile.TemporaryDirectory(prefix="lablink-rehearsal-") as directory:
        Path(directory).chmod(0o755)  # PostgreSQL may run as another user
        async with running_server(Path(directory), settings=FLEETING) as server:
            await bootstrap.prepare(server.dsn(), {bootstrap.OWNER: server.password})
            return await play(server.dsn(bootstrap.OWNER, server.password, bootstrap.DATABASE))


@contextmanager
def shown(people: int) -> "Iterator[Progress]":
    """How far the rehearsal is, on standard error while the block runs, if that is a terminal."""
    from rich.progress import BarColumn, Progress, TextColumn

    from allocator.cli.output import console, duration

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed} of {task.total} are done"))
    with Progress(*columns, console=console(sys.stderr), transient=True, disable=not sys.stderr.isatty()) as bars:
        task = bars.add_task("It begins", total=people)
        yield lambda seconds, done: bars.update(task, completed=done, description=f"After {duration(seconds)}")


def show(came: "Rehearsed", people: int, as_json: bool) -> None:
    """Print what came of it. Raises CommandFailed where a rule was broken."""
    from allocator.cli import output
    from allocator.cli.failures import CommandFailed
    from allocator.cli.plot import plotted

    if as_json:
        output.print_json(asdict(came))
    else:
        told = [{"figure": name, "value": value} for name, value in figures(came, people)]
        output.show_rows(told, COLUMNS, as_json=False)
        print()
        if came.groups:
            output.show_rows(by_group(came), BY_GROUP, as_json=False)
            print()
        for title, series in (("waiting", [m.waiting for m in came.course]), ("lent", [m.lent for m in came.course])):
            print("\n".join(plotted(title, series, came.seconds)), end="\n\n")
    if came.broken:
        raise CommandFailed("A rule was broken: " + "; ".join(came.broken))


COLUMNS = {"figure": "Figure", "value": "Value"}
SHARES = {"half of them": 0.5, "nine of ten": 0.9, "the longest": 1.0}
BY_GROUP = {"group": "Group", "served": "Had a machine"} | {name: name.capitalize() for name in SHARES}


def figures(came: "Rehearsed", people: int) -> list[tuple[str, str]]:
    """The figures for people."""
    from allocator.cli.output import duration

    waits = came.waits
    failed = ", ".join(f"{count} {failure}" for failure, count in came.failed.items())
    held = "–" if came.sure_held is None else f"{came.sure_held:.0%} of {came.told} people"
    return [
        ("had a machine", f"{len(waits)} of {people}"),
        *((f"waited, {name}", wait) for name, wait in longest(waits).items()),
        ("longest queue", str(came.busiest)),
        ("moved to another machine", str(came.moved)),
        *([("leases that failed", failed)] if failed else []),
        ("machines lent, of their time", f"{came.used:.0%}"),
        ("all over after", duration(came.seconds)),
        ("the wait told for nine of ten held for", held),
    ]


def by_group(came: "Rehearsed") -> list[dict[str, str]]:
    """How many of each group had a machine, and how long they waited for it."""
    return [{"group": name, "served": str(len(waits)), **longest(waits)} for name, waits in came.groups.items()]


def longest(waits: list[float]) -> dict[str, str]:
    """How long half of them waited at most, nine of ten and all; nothing of nobody."""
    from allocator.cli.output import duration

    return {
        name: duration(waits[min(len(waits) - 1, int(share * len(waits)))]) for name, share in SHARES.items() if waits
    }

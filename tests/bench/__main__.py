"""`python -m tests.bench`: measures, shows a table, and writes the same as JSON."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from allocator.local import UpFailed
from tests.bench import claim, delivery, machines, upkeep
from tests.bench.figures import Section
from tests.bench.ground import Ground, ground
from tests.bench.machines import MachinesFailed
from tests.bench.options import MACHINES_BOUND_SECONDS, Options
from tests.bench.show import Facts, facts, show, write
from tests.bench.workers import WorkerFailed

Measure = Callable[[Ground, Options, Progress], Awaitable[list[Section]]]


def main(
    quick: Annotated[bool, typer.Option("--quick", help="At most a minute, and less sure.")] = False,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures there too.")] = None,
    clients: Annotated[int, typer.Option(min=1, max=200, help="Machines on each side.")] = 100,
    rate: Annotated[float, typer.Option(min=0.1, max=500, help="Requests a second.")] = 20.0,
    seconds: Annotated[float, typer.Option(min=1, max=60, help="How long each side is under load.")] = 15.0,
    size: Annotated[list[int] | None, typer.Option(min=1, help="VMs of a fleet to time claims in; repeat it.")] = None,
    postgres: Annotated[int | None, typer.Option(metavar="VERSION", help="PostgreSQL's major version.")] = None,
    terraform: Annotated[bool, typer.Option("--terraform", help="Time machines in the cloud instead.")] = False,
    fleet: Annotated[int, typer.Option("--machines", min=1, max=1000, help="How many of those.")] = 100,
) -> None:
    """Measure LabLink beside the naive way: how fast a request becomes a running command, and what a claim costs.

    With --terraform: how long lablink fleet takes beside plain terraform.
    """
    options = Options(clients=clients, rate=rate, seconds=seconds, postgres=postgres, machines=fleet)
    if size:
        options = replace(options, sizes=tuple(size), kept=max(size))
    if quick:
        options = options.quick()
    if terraform:
        options = replace(options, bound_seconds=MACHINES_BOUND_SECONDS)
    try:
        about, sections = asyncio.run(_bounded(options, _machines if terraform else _leases))
    except TimeoutError:
        sys.exit(f"It did not end within {options.bound_seconds:.0f} s: the machine is too busy. Try --quick.")
    except (WorkerFailed, UpFailed, MachinesFailed) as failure:
        sys.exit(str(failure))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
    show(Console(), about, sections)
    if json:
        write(json, about, sections)


async def _bounded(options: Options, measure: Measure) -> tuple[Facts, list[Section]]:
    this = asyncio.current_task()
    assert this
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)  # as Ctrl-C does
    async with asyncio.timeout(options.bound_seconds):
        about = facts()
        with _progress() as bar:
            server = bar.add_task("PostgreSQL", total=1)
            async with ground(options.clients, options.postgres) as own:
                bar.update(server, completed=1)
                sections = await measure(own, options, bar)
                return {"postgresql": await own.version()} | about, sections


async def _leases(own: Ground, options: Options, bar: Progress) -> list[Section]:
    claims, deliveries = bar.add_task("Claims", total=1), bar.add_task("Delivery", total=1)
    database = bar.add_task("Database", total=1)
    claimed = await claim.measure(own, options, partial(bar.advance, claims))
    delivered = await delivery.measure(own, options, partial(bar.advance, deliveries))
    kept = await upkeep.measure(own, options, partial(bar.advance, database))
    return [*delivered, claimed, kept]


async def _machines(own: Ground, options: Options, bar: Progress) -> list[Section]:
    task = bar.add_task("Terraform", total=1)
    return [await machines.measure(own, options.machines, partial(bar.advance, task))]


def _progress() -> Progress:
    title, share = TextColumn("{task.description:<11}"), TextColumn("{task.percentage:3.0f} %")
    return Progress(title, BarColumn(), share, TimeElapsedColumn(), console=Console(stderr=True))


if __name__ == "__main__":
    typer.run(main)

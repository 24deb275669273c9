"""`python -m tests.bench`: measures, shows a table, and writes the same as JSON and as a picture."""

import asyncio
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from allocator.local import UpFailed
from tests.bench.compare import compare
from tests.bench.cores import Usage
from tests.bench.figures import Section
from tests.bench.ground import ground
from tests.bench.options import MACHINES_BOUND_SECONDS, Options
from tests.bench.scenarios import LONGER, SCENARIOS, TERRAFORM, Measure
from tests.bench.scenarios.terraform import MachinesFailed
from tests.bench.show import OTHERS, Facts, document, facts, show, write
from tests.bench.workers import WorkerFailed

UNFINISHED = "unfinished"
"""The scenario that was under way when the time was over."""

File = Path | None
Names = Annotated[list[str] | None, typer.Argument(metavar="[SCENARIO]...", help=", ".join(SCENARIOS))]
Quick = Annotated[bool, typer.Option("--quick", help=f"At most a minute, and less sure; {', '.join(LONGER)} if named.")]
Json = Annotated[File, typer.Option("--json", metavar="FILE", help="Write the figures there too.")]
Picture = Annotated[File, typer.Option("--plot", metavar="FILE", help="Draw them there, as SVG or PNG.")]
Old = Annotated[File, typer.Option("--compare", metavar="OLD", exists=True, help="Beside those of an earlier --json.")]
Vms = Annotated[int, typer.Option(min=10, max=10_000, help="Machines of the largest fleet.")]
Clients = Annotated[int, typer.Option(min=1, max=200, help="Machines that run commands, on each side.")]
Rate = Annotated[float, typer.Option(min=0.1, max=500, help="Requests a second for those.")]
Seconds = Annotated[float, typer.Option(min=1, max=60, help="How long each side is under load.")]
Sizes = Annotated[list[int] | None, typer.Option("--size", min=1, help="VMs of a database to claim in; repeat it.")]
Version = Annotated[int | None, typer.Option(metavar="VERSION", help="PostgreSQL's major version.")]
Data = Annotated[File, typer.Option("--data", metavar="DIR", exists=True, help="PostgreSQL's data; else in memory.")]
Within = Annotated[float | None, typer.Option(min=1, metavar="SECONDS", help="Give up after so long.")]
Terraform = Annotated[bool, typer.Option("--terraform", help="Time machines in the cloud instead.")]
Machines = Annotated[int, typer.Option("--machines", min=1, max=1000, help="How many of those.")]


def main(
    names: Names = None,
    quick: Quick = False,
    json: Json = None,
    picture: Picture = None,
    old: Old = None,
    vms: Vms = 1_000,
    clients: Clients = 100,
    rate: Rate = 20.0,
    seconds: Seconds = 15.0,
    sizes: Sizes = None,
    postgres: Version = None,
    data: Data = None,
    within: Within = None,
    terraform: Terraform = False,
    fleet: Machines = 100,
) -> None:
    """Measure LabLink beside the naive way, beside bare PostgreSQL, and beside what it aims at.

    Without a name, all scenarios are measured. With --terraform: how long lablink fleet takes beside plain terraform.
    """
    options = Options(vms, clients=clients, rate=rate, seconds=seconds, postgres=postgres, data=data, machines=fleet)
    options = options.timing(sizes) if sizes else options
    options = options.quick() if quick else options
    bound = within or (MACHINES_BOUND_SECONDS if terraform else options.bound_seconds)
    options = replace(options, bound_seconds=bound)
    chosen = TERRAFORM if terraform else chosen_of(names, quick=quick)
    about, sections = facts(options) | {UNFINISHED: next(iter(chosen))}, list[Section]()
    failure = _measure(options, chosen, about, sections)
    _tell(about, sections, json, picture, old)
    sys.exit(failure)


def _measure(
    options: Options, scenarios: Mapping[str, Sequence[Measure]], about: Facts, sections: list[Section]
) -> str | None:
    """Measure; returns why it ended early."""
    try:
        asyncio.run(_bounded(options, scenarios, about, sections))
    except TimeoutError:
        less = f"measure {about[UNFINISHED]} alone, or " if len(scenarios) > 1 else ""
        busy = f"other programs used {about[OTHERS]:.0%} of the cores"
        bound = f"It did not end within {options.bound_seconds:.0f} s; {busy}."
        return f"{bound} Next, {less}give it longer: --within SECONDS."
    except (WorkerFailed, UpFailed, MachinesFailed) as failed:
        return str(failed)
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
    return None


def chosen_of(names: Sequence[str] | None, *, quick: bool) -> dict[str, tuple[Measure, ...]]:
    """The scenarios of these names, in their own order; without a name all for which there is time."""
    for name in names or ():
        if name not in SCENARIOS:
            raise typer.BadParameter(f"There is no scenario {name!r}: there are {', '.join(SCENARIOS)}.")
    wanted = names or SCENARIOS.keys() - (LONGER if quick else ())
    return {name: measures for name, measures in SCENARIOS.items() if name in wanted}


async def _bounded(
    options: Options, scenarios: Mapping[str, Sequence[Measure]], about: Facts, sections: list[Section]
) -> None:
    """Measure; what is measured when the time is over stands in `sections`."""
    this = asyncio.current_task()
    assert this
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)  # as Ctrl-C does
    before = Usage.now()
    try:
        async with asyncio.timeout(options.bound_seconds), ground(options) as own:
            about["postgresql"] = await own.version()
            with _progress() as bar:
                tasks = {name: bar.add_task(name.capitalize(), total=len(scenarios[name])) for name in scenarios}
                for name, measures in scenarios.items():
                    about[UNFINISHED], task = name, tasks[name]
                    bar.reset(task)
                    for measure in measures:
                        sections += await measure(own, options, partial(bar.advance, task))
                    bar.stop_task(task)
        del about[UNFINISHED]
    finally:
        about[OTHERS] = round((Usage.now() - before).others, 2)


def _tell(about: Facts, sections: list[Section], json: File, picture: File, old: File) -> None:
    console = Console()
    show(console, about, sections)
    if old:
        compare(console, old, document(about, sections))
    if json:
        write(json, about, sections)
    if picture:
        from tests.bench.plot import plot  # which takes a while to load

        plot(picture, sections)


def _progress() -> Progress:
    title, share = TextColumn("{task.description:<11}"), TextColumn("{task.percentage:3.0f} %")
    return Progress(title, BarColumn(), share, TimeElapsedColumn(), console=Console(stderr=True))


if __name__ == "__main__":
    typer.run(main)

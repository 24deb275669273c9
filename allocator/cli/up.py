"""`lablink up`: everything on this machine."""

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class TransportName(StrEnum):
    """How machines hear of their work."""

    direct = "direct"
    hub = "hub"
    auto = "auto"


Vms = Annotated[int, typer.Option("--vms", min=0, max=500, help="How many machines to lend.")]
Most = Annotated[
    int | None,
    typer.Option("--max", min=0, max=500, help="Start more as people come, up to so many. Left out: as many as --vms."),
]
Port = Annotated[int, typer.Option("--port", min=1, max=65535, help="Port of the web page.")]
Transport = Annotated[
    TransportName,
    typer.Option("--transport", help="How machines speak: to PostgreSQL, over the hub, or whichever answers."),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        envvar="LABLINK_DATA_DIR",
        help="Where all is kept. Left out: .lablink, here or in a directory above; made here if there is none.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting that differs from conf/, this time. May be repeated."),
]


def up(
    vms: Vms = 3,
    most: Most = None,
    port: Port = 8000,
    data_dir: DataDir = None,
    transport: Transport = TransportName.direct,
    settings: Settings = None,
) -> None:
    """Run all of LabLink on this machine: PostgreSQL, the allocator and real clients, until Ctrl-C.

    The data stays in the data directory, so the next start goes on where this one stopped. More --vms than last time
    adds machines; fewer retires as many that nobody has. With --max there are never fewer than --vms, and one more than
    are lent; those that nobody needs any more go after a minute.

    Examples:

    - `lablink up`
    - `lablink up --vms 5 --port 8123 --data-dir /tmp/try`
    - `lablink up --vms 2 --max 6`
    - `lablink up --set pool.lease_seconds=3600`
    """
    from allocator.cli.output import console
    from allocator.local.data_directory import NAME, nearest
    from allocator.local.progress import Progress
    from allocator.local.up import Plan
    from allocator.local.up import up as run

    directory = (data_dir or nearest() or Path(NAME)).absolute()
    most = None if most is None else max(vms, most)
    size = [] if most is None else [f"pool.min_machines={vms}", f"pool.max_machines={most}"]
    told = [f"transport={transport.value}", *size, *(settings or ())]
    asyncio.run(run(Plan(directory, vms, port, most, told), Progress(console())))

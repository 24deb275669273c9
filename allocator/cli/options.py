"""What every command takes: where the database is, and how the answer is printed."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from client.network import Connection

CONTEXT: dict[str, Any] = {
    "no_args_is_help": True,
    "rich_markup_mode": "markdown",
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}

PLACE = "Where the database is"

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        envvar="LABLINK_DATA_DIR",
        help="Where settings are kept, in a file `overrides`: an installation's, or those of a `lablink up`. Left out: "
        ".lablink here or in a directory above, if any.",
        rich_help_panel=PLACE,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A setting that differs from conf/, for example database.host=db.example.org. May be repeated.",
        rich_help_panel=PLACE,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def run_on_database(
    work: "Callable[[Connection], Awaitable[None]]", data_dir: Path | None, settings: list[str] | None
) -> None:
    """Run `work` on one connection of the owner's; what goes wrong becomes a failure with words and an exit code."""
    from allocator.cli.database import connected
    from allocator.cli.waiting import wait_aloud

    asyncio.run(wait_aloud(lambda: connected(data_dir, settings or []), work))


def follow_database(
    look: "Callable[[Connection], Awaitable[None]]", data_dir: Path | None, settings: list[str] | None
) -> None:
    """Call `look` now and after every change of a machine or lease, until Ctrl-C."""
    from allocator.cli.database import connected
    from allocator.cli.follow import follow

    asyncio.run(follow(lambda: connected(data_dir, settings or []), look))

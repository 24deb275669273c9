"""`lablink doctor`: what somebody types when something is wrong, and does not know what."""

from typing import TYPE_CHECKING

import typer

from allocator.cli.options import DataDir, Json, Settings

if TYPE_CHECKING:
    from allocator.cli.diagnosis import Line

MARKS = {True: ("✓", "green"), False: ("✗", "red"), None: ("–", "dim")}


def doctor(as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """Look at everything, from the settings to the machines, and say what is wrong and what to do about it.

    Changes nothing. Exits with 0 when all is well.

    Example: `lablink doctor --data-dir .lablink`
    """
    import asyncio
    from dataclasses import asdict

    from allocator.cli import output
    from allocator.cli.diagnosis import diagnose
    from allocator.cli.long_runs import shown_progress

    with shown_progress():
        lines = asyncio.run(diagnose(data_dir, settings or []))
    if as_json:
        output.print_json([asdict(line) for line in lines])
    else:
        _print(lines)
    if any(line.well is False for line in lines):
        raise typer.Exit(1)


def _print(lines: "list[Line]") -> None:
    from rich.text import Text

    from allocator.cli import output

    for line in lines:
        mark, style = MARKS[line.well]
        cure = f"\n    → {line.cure}" if line.cure else ""
        output.console().print(Text.assemble((mark, style), f" {line.subject}: {line.what}{cure}"), soft_wrap=True)

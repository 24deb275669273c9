"""Shows a run to a person and to a program: a table, and the same as JSON."""

import json
import os
import platform
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.bench.figures import Count, Figure, Row, Section

Facts = dict[str, str | int | float]


def facts() -> Facts:
    """What the figures depend on, before the run makes the machine busy."""
    return {
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def show(console: Console, about: Facts, sections: list[Section]) -> None:
    """Print every section; 80 columns are enough."""
    console.print("  ".join(f"{name.replace('_', ' ')} {value}" for name, value in about.items()), style="dim")
    for section in sections:
        console.print()
        console.print(section.title, style="bold")
        if section.rows:
            console.print(_times(section.rows))
        if section.counts:
            console.print(_counts(section.counts, section.beside))
        for remark in section.remarks:
            console.print(remark, style="dim")


def write(path: Path, about: Facts, sections: list[Section]) -> None:
    """Write every section as JSON; times are milliseconds."""
    document = {"about": about, "unit": "ms", "sections": [section.as_json() for section in sections]}
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def _times(rows: list[Row]) -> Table:
    table = Table(box=SIMPLE_HEAD, header_style="dim", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("\nms", no_wrap=True)
    for side in ("LabLink", "naive"):
        for number, name in enumerate(("p50", "p99", "max")):
            table.add_column(f"{'' if number else side}\n{name}", justify="right", min_width=5)
    table.add_column("naive :\nLabLink", justify="right", no_wrap=True)
    for row in rows:
        ratio = f"{row.ratio:.1f}×" if row.ratio else ""
        table.add_row(row.what, *_cells(row.ours, row.aim), *_cells(row.naive), ratio)
    return table


def _counts(counts: list[Count], beside: str) -> Table:
    table = Table(box=SIMPLE_HEAD, header_style="dim", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("counted", min_width=39)
    for name in ("LabLink", beside, "aim"):
        table.add_column(name, justify="right", min_width=8)
    for count in counts:
        table.add_row(count.what, str(count.ours), str(count.naive), count.aim)
    return table


def _cells(figure: Figure | None, aim: tuple[float, float] | None = None) -> tuple[Text, Text, Text]:
    """The numbers, coloured by whether they reach the aim."""
    if figure is None:
        return (Text(), Text(), Text())
    limits = (*aim, None) if aim else (None, None, None)
    p50, p99, most = (
        Text(_ms(value), style="" if limit is None else "green" if value <= limit else "red")
        for value, limit in zip((figure.p50, figure.p99, figure.max), limits, strict=True)
    )
    return p50, p99, most


def _ms(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"

"""Shows a run to a person and to a program: a table, and the same as JSON."""

import json
import os
import platform
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.figures import Figure, Section

Facts = dict[str, str | int | float]


def facts() -> Facts:
    """What the figures depend on, before the run makes the machine busy."""
    return {
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def show(console: Console, about: Facts, sections: list[Section]) -> None:
    """Print every section."""
    console.print("  ".join(f"{name.replace('_', ' ')} {value}" for name, value in about.items()), style="dim")
    for section in sections:
        console.print(_table(section))
        for remark in section.remarks:
            console.print(f"  {remark}", style="dim")


def write(path: Path, about: Facts, sections: list[Section]) -> None:
    """Write every section as JSON; times are milliseconds."""
    document = {"about": about, "unit": "ms", "sections": [section.as_json() for section in sections]}
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def _table(section: Section) -> Table:
    table = Table(title=section.title, title_justify="left", title_style="bold", header_style="dim")
    table.add_column("ms")
    for side in ("LabLink", "naive"):
        for name in ("p50", "p99", "max", "n"):
            table.add_column(f"{side}\n{name}", justify="right")
    table.add_column("naive :\nLabLink", justify="right")
    table.add_column("aim")
    for row in section.rows:
        ratio = f"{row.ratio:.1f}×" if row.ratio else ""
        table.add_row(row.what, *_cells(row.ours), *_cells(row.naive), ratio, row.aim)
    table.add_section()
    for count in section.counts:
        blank = ("", "", "")
        table.add_row(count.what, *blank, str(count.ours), *blank, str(count.naive), "", count.aim)
    return table


def _cells(figure: Figure | None) -> tuple[str, str, str, str]:
    if figure is None:
        return ("–", "–", "–", "0")
    return (_ms(figure.p50), _ms(figure.p99), _ms(figure.max), str(figure.count))


def _ms(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"

"""Shows a run to a person and to a program: tables, what of its aims is reached, and the same as JSON."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.bench.figures import Figure, Row, Section, Value
from tests.bench.ground import in_memory
from tests.bench.options import Options

Facts = dict[str, str | int | float]
OTHERS = "other_programs"
"""The share of the cores that they used meanwhile."""

LEAST_MARGIN, MOST_MARGIN = 0.01, 100.0


@dataclass(frozen=True, slots=True)
class Aim:
    """Something promised, and what came of it; `margin` is how many times better than promised it is."""

    title: str
    what: str
    promised: str
    measured: str
    margin: float
    met: bool
    never: bool = False
    """Whether it is something that must not happen at all."""


def facts(options: Options) -> Facts:
    """What the figures depend on, before the run makes the machine busy."""
    return {
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        "load_average_before": round(os.getloadavg()[0], 2),
        "largest_fleet": options.vms,
        "data": str(options.data or in_memory() or "on disk"),
    }


def show(console: Console, about: Facts, sections: Sequence[Section]) -> None:
    """Print every section, then the aims; 80 columns are enough."""
    console.print("  ".join(_fact(name, value) for name, value in about.items()), style="dim")
    for section in sections:
        console.print()
        console.print(section.title, style="bold")
        if section.rows:
            console.print(_times(section))
        if section.values:
            console.print(_values(section))
        for remark in section.remarks:
            console.print(remark, style="dim")
    if wanted := aims(sections):
        console.print("\nAims, for two idle cores; ratios hold anywhere", style="bold")
        console.print(_aims(wanted))


def _fact(name: str, value: str | float) -> str:
    return f"{name.replace('_', ' ')} {f'{value:.0%} of the cores' if name == OTHERS else value}"


def document(about: Facts, sections: Sequence[Section]) -> dict[str, Any]:
    """A run as it is kept; times are milliseconds."""
    return {"about": about, "unit": "ms", "sections": [section.as_json() for section in sections]}


def write(path: Path, about: Facts, sections: Sequence[Section]) -> None:
    """Keep a run as JSON."""
    path.write_text(json.dumps(document(about, sections), indent=2, ensure_ascii=False) + "\n")


def aims(sections: Sequence[Section]) -> list[Aim]:
    """Every aim of a run."""
    found = []
    for section in sections:
        found += [_aim_of_row(section, row) for row in section.rows if row.aim]
        found += [_aim_of_value(section, value) for value in section.values if value.aim is not None]
    return found


def _aim_of_row(section: Section, row: Row) -> Aim:
    assert row.aim
    limits, ours = zip(("p50", "p99"), row.aim, strict=True), row.ours
    promised = ", ".join(f"{name} ≤ {limit:g}" for name, limit in limits if isfinite(limit)) + " ms"
    measured = f"{_number(ours.p50)} / {_number(ours.p99)} ms" if ours else "–"
    margin = min(row.aim[0] / max(ours.p50, 1e-3), row.aim[1] / max(ours.p99, 1e-3)) if ours else LEAST_MARGIN
    return Aim(section.title, row.what.strip(), promised, measured, _kept(margin), bool(row.met))


def _aim_of_value(section: Section, value: Value) -> Aim:
    assert value.aim is not None
    reached = value.ours or 0.0
    one, other = (reached, value.aim) if value.more else (value.aim, reached)
    margin = one / other if other else MOST_MARGIN if one else 1.0
    measured, never = _with_unit(value.ours, value.unit), value.aim == 0
    return Aim(section.title, value.what, _promise(value), measured, _kept(margin), bool(value.met), never)


def _kept(margin: float) -> float:
    return min(max(margin, LEAST_MARGIN), MOST_MARGIN)


def _times(section: Section) -> Table:
    rows = section.rows
    table = Table(box=SIMPLE_HEAD, header_style="dim", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("\nms")
    others = [section.beside] if any(row.beside for row in rows) else []
    for side in (section.ours, *others):
        for number, name in enumerate(("p50", "p99", "max")):
            table.add_column(f"{'' if number else side}\n{name}", justify="right", min_width=5, no_wrap=True)
    if others:
        table.add_column("times\nas long", justify="right", no_wrap=True)
    for row in rows:
        cells = [*_cells(row.ours, row.aim), *(_cells(row.beside) if others else ())]
        table.add_row(row.what, *cells, *([f"{row.ratio:.1f}×" if row.ratio else ""] if others else ()))
    return table


def _values(section: Section) -> Table:
    values = section.values
    table = Table(box=SIMPLE_HEAD, header_style="dim", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("", min_width=39)
    others = any(value.beside is not None for value in values)
    for name in (section.ours, *([section.beside] if others else ()), "aim"):
        table.add_column(name, justify="right", min_width=8, no_wrap=True)
    for value in values:
        ours = Text(_with_unit(value.ours, value.unit), style=_colour(value.met))
        theirs = [_with_unit(value.beside, value.unit)] if others else []
        table.add_row(value.what, ours, *theirs, _promise(value))
    return table


def _aims(wanted: Sequence[Aim]) -> Table:
    table = Table(box=SIMPLE_HEAD, header_style="dim", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("what")
    for name in ("promised", "measured", ""):
        table.add_column(name, justify="right", no_wrap=True)
    title, kept = "", [aim for aim in wanted if aim.never and aim.met]
    for aim in wanted:
        if aim in kept:
            continue
        if aim.title != title:
            title = aim.title
            table.add_row(Text(title, style="bold"))
        table.add_row(f"  {aim.what}", aim.promised, aim.measured, Text(*_verdict(aim)))
    if kept:
        table.add_row(f"what must never happen, {len(kept)} times looked for", "never", "never", Text("met", "green"))
    return table


def _verdict(aim: Aim) -> tuple[str, str]:
    return ("met", "green") if aim.met else ("missed", "red")


def _promise(value: Value) -> str:
    if not value.aim:
        return "" if value.aim is None else "never"
    return f"{'≥' if value.more else '≤'} {_with_unit(value.aim, value.unit)}"


def _with_unit(number: float | None, unit: str) -> str:
    if number is None:
        return "–"
    return _number(number) + (unit if unit in ("×", "") else f" {unit}")


def _cells(figure: Figure | None, aim: tuple[float, float] | None = None) -> tuple[Text, Text, Text]:
    """The numbers, coloured by whether they reach the aim."""
    if figure is None:
        return (Text(), Text(), Text())
    met = (figure.p50 <= aim[0], figure.p99 <= aim[1], None) if aim else (None, None, None)
    p50, p99, most = (
        Text(_number(value), style=_colour(well))
        for value, well in zip((figure.p50, figure.p99, figure.max), met, strict=True)
    )
    return p50, p99, most


def _colour(well: bool | None) -> str:
    return "" if well is None else "green" if well else "red"


def _number(value: float) -> str:
    if value == int(value) or abs(value) >= 10:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 0.01 else f"{value:.4f}"

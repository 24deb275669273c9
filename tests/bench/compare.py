"""Lays a run beside an earlier one: each figure then and now, and which got worse by more than the noise."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.bench.show import OTHERS

Document = dict[str, Any]
Name = tuple[str, str]
"""A section's title, and what is measured there."""


@dataclass(frozen=True, slots=True)
class Number:
    """One number of a run, and by which share it may differ from another run's without meaning anything."""

    value: float
    noise: float
    more: bool


def compare(console: Console, old: Path, now: Document) -> None:
    """Print what is in both runs; ratios above 1 are what got larger."""
    then = json.loads(old.read_text())
    before, after = dict(_numbers(then)), dict(_numbers(now))
    disturbed = max(float(run["about"].get(OTHERS, 0)) for run in (then, now))
    both = [name for name in after if name in before]
    console.print(f"\nThen and now: {len(both)} figures; {len(after) - len(both)} have no counterpart", style="bold")
    for name in ("cores", "postgresql", "python"):
        if then["about"].get(name) != now["about"].get(name):
            console.print(f"{name} was {then['about'].get(name)}", style="red")
    if both:
        console.print(_table(both, before, after, disturbed))


def _table(both: list[Name], before: dict[Name, Number], after: dict[Name, Number], disturbed: float) -> Table:
    table = Table(box=SIMPLE_HEAD, header_style="dim", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("what")
    for title in ("then", "now", "now : then", ""):
        table.add_column(title, justify="right", no_wrap=True)
    title = ""
    for name in both:
        if name[0] != title:
            title = name[0]
            table.add_row(Text(title, style="bold"))
        then, now = before[name], after[name]
        ratio = f"{now.value / then.value:.2f}×" if then.value else ""
        table.add_row(f"  {name[1]}", f"{then.value:,.4g}", f"{now.value:,.4g}", ratio, verdict(then, now, disturbed))
    return table


def verdict(then: Number, now: Number, disturbed: float) -> Text:
    """`worse` or `better`, where the difference is more than the noise of either run and what disturbed it."""
    noise = 1 + max(then.noise, now.noise) + disturbed
    low, high = (now.value, then.value) if now.more else (then.value, now.value)
    if high > low * noise:
        return Text("worse", style="red")
    return Text("better", style="green") if low > high * noise else Text()


def _numbers(document: Document) -> Iterator[tuple[Name, Number]]:
    for section in document["sections"]:
        title = section["title"]
        above = ""
        for row in section["rows"]:
            what = row["what"].strip()
            above, what = (above, f"{above} {what}") if what.startswith("…") else (what, what)
            if row["ours"]:
                for which, quantile in enumerate(("p50", "p99")):
                    number = Number(row["ours"][quantile], row["ours"]["noise"][which], more=False)
                    yield (title, f"{what}, {quantile} (ms)"), number
        for value in section["values"]:
            if value["ours"] is not None:
                unit = f" ({value['unit']})" if value["unit"] else ""
                yield (title, value["what"] + unit), Number(value["ours"], value["noise"], value["more"])

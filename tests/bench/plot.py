"""Draws a run: for each section what was timed, from p50 to p99, and for every aim how far from it LabLink is."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import NullFormatter

from tests.bench.figures import Figure, Row, Section
from tests.bench.show import Aim, aims

OURS, BESIDE, MISSED = "#1f6f8b", "#c9a227", "#b23a48"
ROW_INCHES, HEAD_INCHES, WIDTH_INCHES = 0.36, 0.9, 10.0
LABEL_LETTERS = 48


def plot(path: Path, sections: Sequence[Section]) -> None:
    """Write the picture; the file's ending says in which format. Raises ValueError for one that is unknown."""
    timed, wanted = [section for section in sections if section.rows], [aim for aim in aims(sections) if not aim.never]
    heights = [len(section.rows) * ROW_INCHES + HEAD_INCHES for section in timed]
    heights += [len(wanted) * ROW_INCHES + HEAD_INCHES] if wanted else []
    if not heights:
        return
    canvas = Canvas(figsize=(WIDTH_INCHES, sum(heights)), layout="constrained")
    grid = canvas.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, section in zip(grid, timed, strict=False):
        _times(axes, section)
    if wanted:
        _aims(grid[-1], wanted)
    canvas.savefig(path)


def _times(axes: Axes, section: Section) -> None:
    axes.set_title(section.title, loc="left", fontsize="medium")
    for number, row in enumerate(section.rows):
        _stay(axes, number - 0.13, row.ours, OURS)
        _stay(axes, number + 0.13, row.beside, BESIDE)
        if row.aim:
            axes.plot([row.aim[1]], [number - 0.13], marker="|", color=MISSED, markersize=12)
    _labelled(
        axes, [row.what for row in section.rows], f"ms, p50 to p99: {section.ours}{_other(section.rows, section)}"
    )


def _other(rows: Sequence[Row], section: Section) -> str:
    return f" (above), {section.beside} (below)" if any(row.beside for row in rows) else ""


def _stay(axes: Axes, height: float, figure: Figure | None, colour: str) -> None:
    if figure:
        axes.plot([figure.p50, figure.p99], [height, height], color=colour, linewidth=3, marker="o", markersize=4)


def _aims(axes: Axes, wanted: Sequence[Aim]) -> None:
    axes.set_title("Aims: times better (right) or worse (left) than promised", loc="left", fontsize="medium")
    for number, aim in enumerate(wanted):
        axes.barh(number, aim.margin - 1, left=1, height=0.5, color=OURS if aim.met else MISSED)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlim(min(0.5, *(aim.margin for aim in wanted)) / 1.2, 1.2 * max(2, *(aim.margin for aim in wanted)))
    _labelled(axes, [f"{aim.title}: {aim.what}" for aim in wanted], "promised : measured")


def _labelled(axes: Axes, names: Sequence[str], unit: str) -> None:
    axes.set_yticks(range(len(names)), [fill(name, LABEL_LETTERS) for name in names], fontsize="small")
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(unit, fontsize="small")
    axes.grid(axis="x", which="both", alpha=0.2)

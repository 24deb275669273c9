"""A series of numbers as a picture of plain text."""

from collections.abc import Sequence

from allocator.cli.output import duration

WIDTH, HEIGHT = 64, 8
"""Columns and lines of the picture; with its margin it fits a terminal of 80 columns."""

EIGHTHS = " ▁▂▃▄▅▆▇█"


def plotted(title: str, series: Sequence[int], seconds: float, width: int = WIDTH, height: int = HEIGHT) -> list[str]:
    """Lines that show `series` over so many seconds: each column is the highest of its share."""
    columns = [_highest(series, n, width) for n in range(width)]
    top = max(1, *columns)
    margin = len(str(top))
    lines = [_line(columns, top, height, level) for level in reversed(range(height))]
    marks = [str(top), *[""] * (height - 2), "0"]
    axis = f"{'0':<{width - len(duration(seconds))}}{duration(seconds)}"
    drawn = (f"{mark:>{margin}} │{line}".rstrip() for mark, line in zip(marks, lines, strict=True))
    return [title, *drawn, f"{'':{margin}} └{'─' * width}", f"{'':{margin}}  {axis}"]


def _highest(series: Sequence[int], column: int, width: int) -> int:
    """The highest of a column's share, which is one number at least where there are any."""
    begin = column * len(series) // width
    return max(series[begin : max(begin + 1, (column + 1) * len(series) // width)], default=0)


def _line(columns: Sequence[int], top: int, height: int, level: int) -> str:
    filled = (value * height * 8 // top - level * 8 for value in columns)
    return "".join(EIGHTHS[min(8, max(0, eighths))] for eighths in filled)

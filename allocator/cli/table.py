"""A table for people: quick however many rows it has, and nothing in it is ever cut off."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

GAP = "  "
BOLD = Style(bold=True)

Cells = Sequence[Text]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under titles. Where they are wider than the console, the widest columns give way and fold.

    Rich's own measures and pads every cell as if it could be a picture: ten thousand machines took it seven seconds.
    """

    titles: Sequence[str]
    rows: Sequence[Cells]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it, line by line."""
        lines = [[Text(title, BOLD) for title in self.titles], *self.rows]
        widths = _fitting([max(map(_width, column)) for column in zip(*lines, strict=True)], options.max_width)
        for cells in lines:
            folded = [_folded(console, cell, width) for cell, width in zip(cells, widths, strict=True)]
            for line in zip_longest(*folded, fillvalue=Text()):
                yield from _line(console, line, widths)


def _width(cell: Text) -> int:
    return cell_len(cell.plain)


def _fitting(widths: Sequence[int], room: int) -> list[int]:
    """The widths that columns get: all that they want, up to what the widest may have in so much room."""
    room -= len(GAP) * (len(widths) - 1)
    if sum(widths) <= room:
        return list(widths)
    caps = (cap for cap in range(room, 0, -1) if sum(min(width, cap) for width in widths) <= room)
    most = next(caps, 1)
    return [min(width, most) for width in widths]


def _folded(console: Console, cell: Text, width: int) -> Cells:
    return [cell] if _width(cell) <= width else list(cell.wrap(console, width, overflow="fold"))


def _line(console: Console, cells: Cells, widths: Sequence[int]) -> RenderResult:
    room = ""
    for cell, width in zip(cells, widths, strict=True):
        if cell.plain:
            yield Segment(room)
            yield Segment(cell.plain, console.get_style(cell.style))
            room = ""
        room += " " * (width - _width(cell)) + GAP
    yield Segment.line()

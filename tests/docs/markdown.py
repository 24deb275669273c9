"""Reads the parts of our documents that tests compare with the code."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def tables(document: str) -> list[list[dict[str, str]]]:
    """Every table of a document under the root, each row by the names of its columns, without backticks."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", (ROOT / document).read_text(), re.MULTILINE)
    return [_rows(block.splitlines()) for block in blocks]


def table(document: str, *columns: str) -> list[dict[str, str]]:
    """The one table that has exactly these columns."""
    (found,) = (rows for rows in tables(document) if rows and tuple(rows[0]) == columns)
    return found


def arrows(document: str) -> list[set[tuple[str, str]]]:
    """The arrows of each Mermaid diagram between two named states."""
    diagrams = re.findall(r"```mermaid\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    return [set(re.findall(r"^ *(\w+) --> (\w+)", diagram, re.MULTILINE)) for diagram in diagrams]


def _rows(lines: list[str]) -> list[dict[str, str]]:
    names, _, *others = (_cells(line) for line in lines)
    return [dict(zip(names, cells, strict=True)) for cells in others]


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]

"""Reads the parts of our documents that tests compare with the code, and what they have their reader type."""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
PATH = f"{PROGRAMS}:/usr/sbin:{os.environ['PATH']}"
FENCE = re.compile(r" *```")
HEADING = re.compile(r"#{2,} ")
SQL = re.compile(r"(?:ALTER|DELETE|DROP|INSERT|LISTEN|SELECT|SET|TRUNCATE|UPDATE)\b")


@dataclass(frozen=True, slots=True)
class Step:
    """Something to type: under which heading and in which line it stands, and what one sees then, if that is said.

    `language` is the first word after the fence, `where` the rest of it.
    """

    heading: str
    line: int
    language: str
    where: str
    text: str
    in_table: bool = False
    seen: str = ""


def steps(document: str) -> list[Step]:
    """Every fenced block, and every command and statement in a row of a table, in the order of the document.

    A block of `text` is what one sees of the step before it.
    """
    found: list[Step] = []
    for step in _all_steps((ROOT / document).read_text().splitlines()):
        if step.language == "text" and found:
            found[-1] = replace(found[-1], seen=step.text)
        else:
            found.append(step)
    return found


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


def _all_steps(lines: list[str]) -> Iterator[Step]:
    heading, numbered = "", iter(enumerate(lines, 1))
    for number, line in numbered:
        if HEADING.match(line):
            heading = line.lstrip("# ")
        elif FENCE.match(line):
            language, _, where = line.strip("` ").partition(" ")
            block = takewhile(lambda each: not FENCE.match(each[1]), numbered)
            yield Step(heading, number, language, where, dedent("\n".join(text for _, text in block)))
        elif line.lstrip().startswith("|"):
            for typed, language in _typed(line):
                yield Step(heading, number, language, "", typed, in_table=True)


def _typed(row: str) -> Iterator[tuple[str, str]]:
    """What stands in a row and is a statement, or begins with a program of this machine's, with its language."""
    for code in re.findall(r"`([^`]+)`", row):
        if SQL.match(code):
            yield code, "sql"
        elif " " in code and shutil.which(code.split()[0], path=PATH):
            yield code, "sh"


def _rows(lines: list[str]) -> list[dict[str, str]]:
    names, _, *others = (_cells(line) for line in lines)
    return [dict(zip(names, cells, strict=True)) for cells in others]


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]

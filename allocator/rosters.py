"""Reads lists of people as spreadsheets write them: CSV, with the addresses in the column whose header says so."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from allocator.checking import email_complaint, tidy_email

HEADERS = frozenset({"email", "emailaddress", "mail", "mailaddress"})
"""What a column of addresses may be called, letters only: E-Mail, "Email address" …"""

DELIMITERS = ",;\t"

FORMULA = re.compile(r"'*[=+-]")
"""How a formula begins, which in a spreadsheet is text with a ' before it. Whoever joins by code types any address."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that names nobody, by its number from 1, and why."""

    line: int
    why: str


@dataclass(frozen=True, slots=True)
class Roster:
    """Whom a list names, in its order, each once; and the lines that name nobody."""

    emails: Sequence[str]
    bad: Sequence[BadLine]


def read_roster(text: str) -> Roster:
    """The people of a list: in the column that is called e-mail, else in the first. Empty lines are left out."""
    people: dict[str, str] = {}
    bad = []
    for line, typed in _addresses(text):
        email = tidy_email(_without_mark(typed.strip()))
        if complaint := email_complaint(email):
            bad.append(BadLine(line, complaint))
        else:
            people.setdefault(email.lower(), email)
    return Roster(list(people.values()), bad)


def written(people: Sequence[Mapping[str, str]]) -> str:
    """A list as CSV that `read_roster` reads: columns `email` and `group`; no address is a formula."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["email", "group"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({**each, "email": _with_mark(each["email"])} for each in people)
    return text.getvalue()


def _with_mark(email: str) -> str:
    return f"'{email}" if FORMULA.match(email) else email


def _without_mark(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def _addresses(text: str) -> Iterator[tuple[int, str]]:
    """Each line's number and what stands where its address must be."""
    lines = text.removeprefix("\ufeff").splitlines(keepends=True)
    first = next(filter(str.strip, lines), "")
    rows = csv.reader(lines, delimiter=max(DELIMITERS, key=first.count))
    filled = ((rows.line_num, row) for row in rows if any(map(str.strip, row)))
    top = next(filled, None)
    if top is None:
        return
    at, is_header = _column(top[1])
    for line, row in filled if is_header else chain([top], filled):
        yield line, row[at] if at < len(row) else ""


def _column(top: Sequence[str]) -> tuple[int, bool]:
    """Where the addresses stand, and whether the first line only says so."""
    titles = [re.sub(r"[^a-z]", "", title.lower()) for title in top]
    at = next((at for at, title in enumerate(titles) if title in HEADERS), 0)
    return at, not any("@" in cell for cell in top)

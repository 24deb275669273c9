"""Who may do what with everything that there is, read from the catalogue: role × object × privilege."""

import csv
from collections.abc import Iterable
from pathlib import Path

import asyncpg

TABLE = Path(__file__).with_name("privileges.csv")
QUESTION = Path(__file__).with_name("privileges.sql")
MACHINE, EVERYBODY = "a machine", "everybody"
ROLES = ("lablink_app", "lablink_reader", "lablink_client", MACHINE, EVERYBODY)
HEADING = ("kind", "object", *ROLES)

Matrix = dict[tuple[str, str], tuple[str, ...]]
"""(kind, object) → what each of ROLES may do with it."""


async def matrix(connection: asyncpg.Connection, machine: str) -> Matrix:
    """What each role may do; `machine` is the role of some machine. Of PostgreSQL's own roles, those that one has."""
    roles = ["public" if role == EVERYBODY else machine if role == MACHINE else role for role in ROLES]
    found: dict[tuple[str, str], list[str]] = {}
    for row in await connection.fetch(QUESTION.read_text(), roles):
        found.setdefault((row["kind"], row["object"]), []).append(row["may"] or "")
    return {
        key: tuple(may) for key, may in found.items() if any(may) or key[0] != "role" or key[1].startswith("lablink")
    }


def expected() -> Matrix:
    """What is checked in."""
    with TABLE.open(newline="") as file:
        heading, *rows = csv.reader(file)
    assert tuple(heading) == HEADING
    return {(kind, name): tuple(may) for kind, name, *may in rows}


def accept(found: Matrix) -> None:
    """Make what was found what is checked in."""
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([HEADING, *((*key, *may) for key, may in sorted(found.items()))])


def differences(found: Matrix, wanted: Matrix) -> Iterable[str]:
    """What differs, a line each: what there is now, and what is checked in."""
    for kind, name in sorted(found.keys() | wanted.keys()):
        now, before = found.get((kind, name)), wanted.get((kind, name))
        if now is None:
            yield f"{kind} {name}: is not there any more"
        elif before is None:
            may = ", ".join(f"{role}: {words}" for role, words in zip(ROLES, now, strict=True) if words)
            yield f"{kind} {name}: is new; {may or 'nobody but its owner may touch it'}"
        else:
            for role, may, might in zip(ROLES, now, before, strict=True):
                if may != might:
                    yield f"{kind} {name}: {role} may {may or 'do nothing'}; checked in is {might or 'nothing'}"

"""Compares a database's schema with the one that the code makes: built beside it, by the same server."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from allocator import bootstrap, migrate
from allocator.upkeep.reach import connected
from allocator.upkeep.scratch import reference_database
from client.network import Connection

QUERY = Path(__file__).with_name("catalogue.sql")

# What is parsed anew from a dump gets other casts, parentheses and names of unnamed columns than it had.
PARSED_ANEW = re.compile(r'\bAS "?[\w?]+"?|::(?:text|character varying)(?:\(\d+\))?(?:\[\])?|[()\s]+')
REPARSED = {"constraint", "index", "view", "column", "function", "policy", "trigger"}

HARMLESS = {"table", "view", "index", "sequence", "function", "column", "type", "schema"}
"""What an admin may add: nothing of ours runs or is refused because of it."""

OF_LABLINK = re.compile(r"everybody|lablink_app|lablink_reader|lablink_client|lablink_vm_\w+")
MIGRATE = "lablink db migrate"


@dataclass(frozen=True, slots=True)
class Fact:
    """One part of the schema."""

    kind: str
    name: str
    of_table: str | None
    definition: str

    @property
    def meaning(self) -> str:
        """The definition, without what a dump and a restore change."""
        return PARSED_ANEW.sub("", self.definition) if self.kind in REPARSED else self.definition


class Grant(NamedTuple):
    """What a fact of the kind "grant" says: that a role has a right on something."""

    role: str
    right: str
    kind: str
    name: str

    @classmethod
    def of(cls, fact: Fact) -> Self:
        """From `ROLE may RIGHT KIND NAME`, as catalogue.sql puts it."""
        role, _, what = fact.name.partition(" may ")
        return cls(role, *what.split(" ", 2))


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the schema is not the code's, and what to do. What an admin added and harms nothing is not `wrong`."""

    what: str
    cure: str
    wrong: bool = True


Catalogue = Mapping[tuple[str, str], Fact]


async def read(connection: Connection) -> Catalogue:
    """What the schema consists of, as the connection's role sees it (nothing in the catalogue is hidden)."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.execute("SET LOCAL search_path = pg_catalog")
        rows = await connection.fetch(QUERY.read_text())
    return {(row["kind"], row["name"]): Fact(**row) for row in rows}


async def reference(dsn: str) -> Catalogue:
    """What the code makes, on the server of `dsn`, which is the owner's: in a database that is dropped again."""
    async with reference_database(dsn) as other:
        await migrate.upgrade(other)
        async with connected(other) as connection:
            return await read(connection)


def differences(found: Catalogue, wanted: Catalogue) -> list[Difference]:
    """Where `found` is not as `wanted`."""
    missing = [_missing(wanted[key]) for key in wanted.keys() - found.keys() if _tells(wanted[key], found)]
    changed = [
        _changed(found[key]) for key in wanted.keys() & found.keys() if found[key].meaning != wanted[key].meaning
    ]
    more = [found[key] for key in found.keys() - wanted.keys() if _tells(found[key], wanted)]
    added = [_added(fact) for fact in more if fact.kind != "grant"]
    granted = _granted([fact for fact in more if fact.kind == "grant"])
    return sorted([*missing, *changed, *added, *granted], key=lambda each: (not each.wrong, each.what))


def _tells(fact: Fact, other: Catalogue) -> bool:
    """Whether the fact says more than that its table, or what is granted, is only on one side."""
    if fact.kind == "grant":
        grant = Grant.of(fact)
        return grant.kind == "column" or (grant.kind, grant.name) in other
    itself = fact.of_table is None or fact.name == fact.of_table
    return itself or any((kind, fact.of_table) in other for kind in ("table", "view", "type"))


def _missing(fact: Fact) -> Difference:
    if fact.kind == "grant":
        return Difference(f"{fact.name.replace(' may ', ' may not ', 1)}, and must.", MIGRATE)
    cure = MIGRATE if fact.kind in ("function", "trigger", "view") else "Restore a backup, or make it again by hand."
    return Difference(f"The {fact.kind} {fact.name} is missing.", cure)


def _changed(fact: Fact) -> Difference:
    if fact.kind == "trigger" and fact.definition.endswith(("disabled", "enabled otherwise")):
        name, _, table = fact.name.rpartition(" on ")
        return Difference(f"The trigger {fact.name} is off.", f"ALTER TABLE {table} ENABLE TRIGGER {name}")
    if fact.kind == "index" and fact.definition.endswith(" invalid"):
        return Difference(f"The index {fact.name} is not complete.", f"lablink db reindex {fact.of_table}")
    cure = MIGRATE if fact.kind in ("function", "trigger", "view") else "Take the change back by hand, as the owner."
    if fact.kind in ("function", "view", "table") and not fact.definition.startswith(f"owner {bootstrap.OWNER} "):
        cure = f"ALTER {fact.kind.upper()} {fact.name} OWNER TO {bootstrap.OWNER}, then {MIGRATE}"
    return Difference(f"The {fact.kind} {fact.name} is not LabLink's own.", cure)


def _granted(facts: Iterable[Fact]) -> Iterator[Difference]:
    """A difference for each role and thing: all that the role may do there, and the statement that takes it back."""
    rights = defaultdict(list)
    for grant in sorted(map(Grant.of, facts)):
        rights[grant._replace(right="")].append(grant.right)
    for grant, several in rights.items():
        wrong = OF_LABLINK.fullmatch(grant.role) is not None
        all_of_it = grant._replace(right=", ".join(several))
        may = f"{grant.role.replace('everybody', 'Everybody')} may {all_of_it.right} {grant.kind} {grant.name}"
        cure = _revoke(all_of_it) + ("" if wrong else ", unless it is meant")
        yield Difference(f"{may}, and LabLink does not need that.", cure, wrong)


def _revoke(grant: Grant) -> str:
    where = f" ON {'' if grant.kind in ('table', 'view') else grant.kind.upper() + ' '}{grant.name}"
    if grant.kind == "column":
        table, _, column = grant.name.rpartition(".")
        where = f" ({column}) ON {table}"
    return f"REVOKE {grant.right}{where} FROM {grant.role.replace('everybody', 'PUBLIC')}"


def _added(fact: Fact) -> Difference:
    wrong = fact.kind not in HARMLESS or (fact.kind == "index" and fact.definition.endswith(" invalid"))
    return Difference(f"The {fact.kind} {fact.name} is not one of LabLink's.", "Drop it, unless it is yours.", wrong)

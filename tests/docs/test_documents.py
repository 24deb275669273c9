"""What the documents point at is there, and no module is left out of the list of where each line lives."""

import re
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT, tables

DOCUMENTS = sorted(str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
LINK = re.compile(r"\[[^\]]+\]\(([^)#\s]+)[^)]*\)")
FILE = re.compile(r"(?<![\w/.-])(?:allocator|client|tests|docs|conf)/[\w./-]*\w")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_and_every_file_that_a_document_names_is_there(document: str) -> None:
    path = ROOT / document
    links = [path.parent / link for link in LINK.findall(path.read_text()) if "://" not in link]
    files = [ROOT / name for name in FILE.findall(path.read_text())]
    assert [str(target) for target in [*links, *files] if not target.exists()] == []


@pytest.mark.parametrize(
    "package",
    [
        "client",
        "allocator",
        "allocator/cli",
        "allocator/cli/db",
        "allocator/cli/fleet",
        "allocator/fleet",
        "allocator/local",
        "allocator/sql/functions",
        "allocator/upkeep",
    ],
)
def test_the_architecture_says_what_every_module_is_for(package: str) -> None:
    there = {path.name for path in (ROOT / package).iterdir() if path.suffix in {".py", ".sql"}} - {"__init__.py"}
    assert min((there - listed for listed in _listed()), key=len) == set()


def _listed() -> list[set[str]]:
    """The files of each table of the architecture; two packages may have one of the same name."""
    cells = ([row.get("file", "") for row in rows] for rows in tables("docs/architecture.md"))
    return [{Path(name.rstrip("/")).name for cell in group for name in cell.split(", ")} for group in cells]

"""What the documents beside docs/operations.md tell an admin to type does it, and what all of them name is there."""

import json
import re

import asyncpg
import pytest
from typer.main import get_command

from allocator.cli import failures
from allocator.cli.commands import app
from allocator.config import load_settings
from allocator.migrations import function_files
from tests.docs.markdown import ROOT, table
from tests.support.database import Database

TYPED = "docs/operations.md"
"""The page that is typed as a whole: test_operations_typed.py."""

PAGES = ["README.md", TYPED, "docs/states.md", "docs/security.md"]
STATEMENTS = [
    statement.strip()
    for page in PAGES
    if page != TYPED
    for block in re.findall(r"```sql\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    for statement in re.sub(r"--.*", "", block).split(";")
    if statement.strip()
]
KINDS = re.compile(
    r"(?<!')'((?:vm|lease|admin|alert|group|code|pool|schedule|fleet|history|database)\.[a-z]+)'"
)  # a hint's has two quotes
COMMAND = re.compile(
    r"`lablink ([a-z]+)(?: ([a-z-]+))?|^\$ (?:\(umask 077; )?lablink ([a-z]+)(?: ([a-z-]+))?", re.MULTILINE
)


async def lent(database: Database) -> asyncpg.Connection:
    """The owner's connection to a database in which Ada has vm-1 and another machine is free."""
    await database.vm("vm-1")
    owner = await database.connect()
    await owner.execute("UPDATE vms SET status = 'in-use', email = 'ada@example.org' WHERE hostname = 'vm-1'")
    await database.vm("vm-2")
    return owner


@pytest.mark.parametrize("statement", STATEMENTS)
async def test_a_statement_of_the_documents_runs_as_it_is_printed(database: Database, statement: str) -> None:
    owner = await lent(database)

    await owner.execute(statement)

    assert await owner.fetch("SELECT * FROM broken_invariants()") == []


async def test_every_kind_of_event_is_explained(database: Database) -> None:
    owner = await database.connect()
    statuses = [
        f"{kind}.{row[0]}"
        for kind in ("vm", "lease")
        for row in await owner.fetch(
            f"SELECT from_status FROM {kind}_transitions UNION SELECT to_status FROM {kind}_transitions"
        )
    ]
    named = {kind for file in function_files() for kind in KINDS.findall(file.read_text())}

    explained = {row["kind"] for row in table(TYPED, "kind", "what happened")}

    assert explained == {*statuses, *named}


async def test_every_setting_of_a_pool_is_explained_with_what_it_is_without(database: Database) -> None:
    owner = await database.connect()
    rules = table(TYPED, "setting of a pool", "what it says", "without")
    sizes = table(TYPED, "setting", "what it says")
    not_set = {"name", "paused", "paused_at", "rests_until", "budget_told", "is_budgeted", "transport"}
    usual = load_settings([]).pool.model_dump(mode="json", by_alias=True) | {"claim_seconds": 60}
    made = json.loads(await owner.fetchval("INSERT INTO pools (name) VALUES ('made') RETURNING to_jsonb(pools)"))

    assert {row["setting of a pool"] for row in rules} | {row["setting"] for row in sizes} == made.keys() - not_set
    assert made.keys() - not_set == usual.keys() - {"name"}
    for name, without in ((row["setting of a pool"], row["without"].partition(";")[0]) for row in rules):
        assert without == json.dumps(usual[name]).strip('"') or ("none" in without and not usual[name])
    assert {name for name in made.keys() - not_set if made[name] != usual[name]} == {"extend_seconds"}


def test_every_exit_code_of_a_failure_is_explained() -> None:
    kinds: list[type[failures.CommandFailed]] = [failures.CommandFailed, *failures.CommandFailed.__subclasses__()]

    explained = {int(row["exit code"]) for row in table(TYPED, "exit code", "what it means")}

    assert explained == {0, 130} | {kind.exit_code for kind in kinds}


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_a_document_names_is_there(page: str) -> None:
    there = get_command(app).commands  # type: ignore[attr-defined]
    for first, second, typed, and_second in COMMAND.findall((ROOT / page).read_text()):
        command = there[first or typed]
        assert (second or and_second) in getattr(command, "commands", {second or and_second})

"""Every version of PostgreSQL tells of the same schema alike, so `verify` says the same before and after a move."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from allocator.local.postgres import running_server
from allocator.upkeep import catalogue
from tests.support.database import Database, cloned_database, migrated_template
from tests.support.server import UNSAFE_AND_FAST, TestServer

QUALIFIED = re.compile(r"\b[a-z]\w*\.(?=[a-z])")
"""A table before its column: PostgreSQL 15 says it also in a view that has one table only."""


async def schema(database: Database) -> dict[tuple[str, str], str]:
    """What is in the schema, and what it means."""
    facts = await catalogue.read(await database.connect())
    return {key: _unqualified(fact).meaning for key, fact in facts.items()}


def _unqualified(fact: catalogue.Fact) -> catalogue.Fact:
    return replace(fact, definition=QUALIFIED.sub("", fact.definition)) if fact.kind == "view" else fact


@pytest.mark.parametrize("version", [15, 16])
async def test_a_schema_is_told_alike_by_every_version_of_postgresql(
    database: Database, version: int, tmp_path: Path
) -> None:
    here = await schema(database)
    async with running_server(tmp_path, clients=20, version=version, settings=UNSAFE_AND_FAST) as own:
        server = TestServer(own.dsn(), own.version)
        async with migrated_template(server) as template, cloned_database(server, template, "lablink_other") as other:
            there = await schema(other)

    assert server.version == version
    assert there == here

"""The guide's own way, a plain `pg_dump` and `psql <`, brings everything back into a database just deployed."""

import re
from collections.abc import AsyncIterator

import pytest_asyncio

from allocator import bootstrap, migrate
from allocator.upkeep import programs
from tests.docs.markdown import ROOT
from tests.sql.steps import ADA, BOB, CYD, ask
from tests.sql.test_guide import output_of
from tests.support.database import PASSWORDS, Database, as_superuser
from tests.support.upkeep import some_life


@pytest_asyncio.fixture
async def elsewhere(database: Database) -> AsyncIterator[Database]:
    """A database as `lablink db deploy` makes it, before its tables."""
    name = f"{database.name}_elsewhere"
    await bootstrap.prepare(database.server.superuser_dsn, PASSWORDS, name)
    yield Database(database.server, name, database.opened)
    await as_superuser(database.server, f"DROP DATABASE {name} WITH (FORCE)")


async def copy_as_in_the_guide(source: Database, target: Database) -> None:
    """pg_dump -U lablink … > f.sql; psql -U lablink … < f.sql"""
    pg_dump, psql = (programs.find(name, source.server.version).path for name in ("pg_dump", "psql"))
    dump = await output_of(str(pg_dump), source.dsn("lablink"))
    await output_of(str(psql), "-X", "-v", "ON_ERROR_STOP=1", target.dsn("lablink"), stdin=dump.encode())


async def test_a_plain_dump_restores_what_was_there_and_the_service_goes_on(
    database: Database, elsewhere: Database
) -> None:
    vm = await some_life(database)
    await copy_as_in_the_guide(database, elsewhere)

    assert (
        await migrate.upgrade(elsewhere.dsn("lablink")) == (await migrate.history(elsewhere.dsn("lablink")))[-1].version
    )
    service, owner = await elsewhere.connect("lablink_app"), await elsewhere.connect()
    assert (await ask(service, CYD))["outcome"] == "created"
    assert [row["email"] for row in await owner.fetch("SELECT email FROM leases ORDER BY place")] == [ADA, BOB, CYD]
    client = await database.keep(vm.dsn.replace(f"/{database.name}", f"/{elsewhere.name}"))
    assert await client.fetchval("SELECT status FROM client_api.hello(0, NULL)") == "in-use"
    assert await owner.fetch("SELECT * FROM broken_invariants()") == []


async def test_a_database_is_emptied_and_restored_in_psql_as_the_page_for_admins_says(database: Database) -> None:
    vm = await some_life(database)
    pg_dump, psql = (str(programs.find(name, database.server.version).path) for name in ("pg_dump", "psql"))
    dump = await output_of(pg_dump, database.dsn("lablink"))
    (empty,) = re.findall(r'-c "(DROP SCHEMA .*?)"', (ROOT / "docs" / "operations.md").read_text())
    run = [psql, "-X", "-v", "ON_ERROR_STOP=1", database.dsn("lablink")]
    await output_of(*run, "-c", empty)

    await output_of(*run, stdin=dump.encode())
    await migrate.upgrade(database.dsn("lablink"))

    client, owner = await vm.connect(), await database.connect()
    assert await client.fetchval("SELECT status FROM client_api.hello(0, NULL)") == "in-use"
    assert await owner.fetch("SELECT * FROM broken_invariants()") == []


async def test_a_plain_dump_that_psql_reads_into_a_database_in_use_changes_nothing(database: Database) -> None:
    await some_life(database)
    pg_dump, psql = (str(programs.find(name, database.server.version).path) for name in ("pg_dump", "psql"))
    dump = await output_of(pg_dump, database.dsn("lablink"))
    await database.vm("vm-2")
    owner, tables = await database.connect(), ("vms", "leases", "events")
    before = [await owner.fetch(f"SELECT * FROM {table}") for table in tables]

    await output_of(psql, "-X", database.dsn("lablink"), stdin=dump.encode())

    assert [await owner.fetch(f"SELECT * FROM {table}") for table in tables] == before
    await database.vm("vm-3")
    assert await owner.fetch("SELECT id FROM events GROUP BY id HAVING count(*) > 1") == []
    assert await owner.fetch("SELECT * FROM broken_invariants()") == []


async def test_codes_in_a_plain_dump_are_too_old_by_themselves(database: Database, elsewhere: Database) -> None:
    await some_life(database)
    for lease in await (await database.connect()).fetch("SELECT id FROM leases"):
        await database.age(lease["id"], 601)
    await copy_as_in_the_guide(database, elsewhere)

    service, owner = await elsewhere.connect("lablink_app"), await elsewhere.connect()
    assert await service.fetchval("SELECT sweep_secrets()") == 2

    assert await owner.fetchval("SELECT count(*) FROM lease_secrets") == 0
    leases = await owner.fetch("SELECT needs_line, trouble FROM leases")
    assert {tuple(row) for row in leases} == {(True, "code-expired")}

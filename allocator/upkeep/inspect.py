"""Whether a database is as it must be: version, schema, surroundings, and every rule that a row can break."""

import asyncpg

from allocator import migrate
from allocator.connection import Connection
from allocator.upkeep import catalogue, surroundings
from allocator.upkeep.reach import connected
from allocator.upkeep.surroundings import Finding

__all__ = ["Finding", "findings", "schema_findings"]

BESIDE_THE_POOL = 2
"""Connections of an allocator besides its pool: its feed's and its sweeps'."""

RULES = "SELECT rule, what FROM broken_invariants() ORDER BY rule, what"
WATCH = "It mends itself within a minute, or see docs/states.md and lablink events."


async def findings(dsn: str, service_connections: int = 12) -> list[Finding]:
    """All that is not as it must be, what is wrong first. `dsn` is the owner's; nothing is changed.

    `service_connections` is how many the allocators open together. Raises what asyncpg does when the database does not
    answer, and migrate.MigrationFailed when it is of a version that this LabLink does not know.
    """
    missing = [step for step in await migrate.history(dsn) if not step.applied]
    if missing:
        versions = ", ".join(step.version for step in missing)
        return [Finding("version", f"The database lacks version {versions}.", catalogue.MIGRATE)]
    async with connected(dsn) as connection:
        found = await schema_findings(connection, dsn)
        found += await _rules(connection)
        found += [each async for each in surroundings.room(connection, service_connections)]
        for check in surroundings.CHECKS:
            found += [each async for each in check(connection)]
    return sorted(found, key=lambda each: not each.wrong)


async def schema_findings(connection: Connection, dsn: str) -> list[Finding]:
    """Where the schema that `connection` sees differs from the code's, which is built on the server of `dsn`."""
    try:
        wanted = await catalogue.reference(dsn)
    except (asyncpg.InsufficientPrivilegeError, asyncpg.ReadOnlySQLTransactionError) as error:
        what = f"The schema was not compared, because no database to compare it with can be made here: {error}."
        return [Finding("schema", what, "ALTER ROLE lablink CREATEDB", wrong=False)]
    differences = catalogue.differences(await catalogue.read(connection), wanted)
    return [Finding("schema", each.what, each.cure, each.wrong) for each in differences]


async def _rules(connection: Connection) -> list[Finding]:
    """The rules that rows break; none where the schema, of which more is said, cannot be asked."""
    try:
        return [Finding(row["rule"], f"{row['what']}.", WATCH) for row in await connection.fetch(RULES)]
    except asyncpg.SyntaxOrAccessError:
        return []

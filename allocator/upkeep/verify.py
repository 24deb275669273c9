"""Whether a database is as it must be: version, schema, surroundings, and every rule that a row can break."""

from contextlib import suppress
from datetime import datetime

import asyncpg

from allocator import migrate
from allocator.operations import Tell
from allocator.upkeep import catalogue, surroundings
from allocator.upkeep.history import Head, broken_history
from allocator.upkeep.reach import connected
from allocator.upkeep.surroundings import Finding
from client.network import Connection

RULES = "SELECT rule, what FROM broken_invariants() ORDER BY rule, what"
WATCH = "It mends itself within a minute, or see docs/states.md and lablink events."
ASK = "Find out who did it: nothing of LabLink's changes the history. A backup may have it as it was."


async def quiet(_done: int, _total: int | None, _what: str) -> None:
    """A Tell for those who do not watch."""


async def promises(
    dsn: str, *, since: datetime | None = None, head: Head | None = None, tell: Tell = quiet
) -> list[Finding]:
    """What is not as it must be in the database itself: version, schema, roles, rules and history; wrong things first.

    `dsn` is the owner's; nothing is changed. Of the history `since` and `head` limit and add what broken_history says.
    Raises what asyncpg does when the database does not answer, and migrate.MigrationFailed when it is of a version that
    this LabLink does not know.
    """
    missing = [step for step in await migrate.history(dsn) if not step.applied]
    if missing:
        versions = ", ".join(step.version for step in missing)
        return [Finding("version", f"The database lacks version {versions}.", catalogue.MIGRATE)]
    async with connected(dsn) as connection:
        found = await schema_findings(connection, dsn)
        found += [each async for each in surroundings.roles(connection)]
        with suppress(asyncpg.SyntaxOrAccessError):  # of a schema that cannot be asked more is said above
            found += [Finding(row["rule"], f"{row['what']}.", WATCH) for row in await connection.fetch(RULES)]
            broken = await broken_history(connection, since=since, head=head, tell=tell)
            found += [Finding("history", f"{what.rstrip('.')}.", ASK) for what in broken]
    return sorted(found, key=_order)


async def findings(
    dsn: str,
    service_connections: int = surroundings.ONE_ALLOCATOR,
    *,
    since: datetime | None = None,
    tell: Tell = quiet,
) -> list[Finding]:
    """All of `promises`, and what is not as it must be around the database: the server, its doors and its room.

    `service_connections` is how many the allocators open together.
    """
    found = await promises(dsn, since=since, tell=tell)
    if any(each.rule == "version" for each in found):
        return found
    async with connected(dsn) as connection:
        found += [each async for each in surroundings.room(connection, service_connections)]
        for check in surroundings.CHECKS:
            found += [each async for each in check(connection)]
    return sorted(found, key=_order)


async def schema_findings(connection: Connection, dsn: str) -> list[Finding]:
    """Where the schema that `connection` sees differs from the code's, which is built on the server of `dsn`."""
    try:
        wanted = await catalogue.reference(dsn)
    except (asyncpg.InsufficientPrivilegeError, asyncpg.ReadOnlySQLTransactionError) as error:
        what = f"The schema was not compared, because no database to compare it with can be made here: {error}."
        return [Finding("schema", what, "As a superuser: ALTER ROLE lablink CREATEDB", wrong=False)]
    differences = catalogue.differences(await catalogue.read(connection), wanted)
    return [Finding("schema", each.what, each.cure, each.wrong) for each in differences]


def _order(finding: Finding) -> bool:
    return not finding.wrong

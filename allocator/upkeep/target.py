"""The server that a database moves to: whether it will do, and the machines' roles there."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import asyncpg

from allocator.upkeep import UpkeepFailed, tune
from allocator.upkeep.reach import connected, database_of, in_database
from allocator.upkeep.surroundings import FOR_ADMINS, ONE_ALLOCATOR
from allocator.upkeep.way_in import in_words
from client.network import Connection, distrust

THERE = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)"
USED = """
    SELECT EXISTS (SELECT FROM vms) OR EXISTS (SELECT FROM leases) OR EXISTS (SELECT FROM join_tokens)
        OR EXISTS (SELECT FROM events) OR EXISTS (SELECT FROM pools WHERE name <> 'default')
"""
SOMETHING_ELSE = """
    SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE c.relkind IN ('r', 'p') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema')
"""

ROLES = """
    SELECT r.rolname AS role, v.hostname, r.rolcanlogin AS may_enter, shobj_description(r.oid, 'pg_authid') AS wish,
           p.transport = 'hub' AND m.hub_sha256 IS NOT NULL AS by_token
    FROM vm_roles m JOIN pg_roles r ON r.rolname = m.role
    LEFT JOIN vms v ON v.role = m.role AND v.status <> 'retired' LEFT JOIN pools p ON p.name = v.pool
    ORDER BY v.hostname
"""
VERIFIERS = "SELECT rolname, rolpassword FROM pg_authid WHERE rolname = ANY ($1) AND rolpassword IS NOT NULL"
MISSING = "SELECT role FROM unnest($1::name[]) AS role WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role)"
AS_THERE = """
    SELECT format('ALTER ROLE %1$I %2$s CONNECTION LIMIT 3 PASSWORD %3$L; COMMENT ON ROLE %1$I IS %4$L',
                  $1::name, CASE WHEN $2 THEN 'LOGIN' ELSE 'NOLOGIN' END, $3::text, $4::text)
"""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the database goes, and the passwords that LabLink's roles get there, by the name of the role."""

    superuser: str
    """A superuser's or a managed service's master user's connection string, to any database there."""
    owner: str
    """The owner's, to the database that will be."""
    passwords: Mapping[str, str]


async def refuse_if_unfit(dsn: str, target: Target) -> int:
    """The target's version of PostgreSQL. Raises UpkeepFailed when the database at `dsn` cannot go there."""
    async with connected(dsn) as here, _entered(target.superuser) as there:
        newest, version = here.get_server_version().major, there.get_server_version().major
        if version < newest:
            raise UpkeepFailed(f"The target has PostgreSQL {version}, and this database comes from {newest}.")
        most, needed = await tune.max_connections(there), await tune.machines(here) + ONE_ALLOCATOR + FOR_ADMINS
        if most < needed:
            raise UpkeepFailed(
                f"The target has room for {most} connections, and its machines, an allocator and admins need {needed}: "
                "raise max_connections there (lablink db tune)."
            )
        used = await there.fetchval(THERE, database_of(target.owner))
    if used:
        async with connected(in_database(target.superuser, database_of(target.owner))) as there:
            await refuse_if_used(there)
    return version


async def refuse_if_used(there: Connection) -> None:
    """Raises UpkeepFailed when the database holds more than `lablink db deploy` makes."""
    try:
        used = await there.fetchval(USED)
    except asyncpg.UndefinedTableError:
        used = await there.fetchval(SOMETHING_ELSE)
    if used:
        name = await there.fetchval("SELECT current_database()")
        raise UpkeepFailed(
            f"The target's {name} is not empty, and nothing there is overwritten: drop or rename it first."
        )


@asynccontextmanager
async def machines_roles(reader: str, here: Connection, target: Target) -> AsyncIterator[list[str]]:
    """The machines' roles of the database `here`, made at the target; new ones go again when the block raises.

    Yields the machines whose password verifier `reader`, a connection string to the server here, may not read. Those
    that speak over the hub are not among them: their tokens are in the database.
    """
    roles = await here.fetch(ROLES)
    names = [row["role"] for row in roles]
    verifiers = await _verifiers(reader, names)
    async with connected(target.owner) as there:
        new = [row["role"] for row in await there.fetch(MISSING, names)]
    try:
        async with connected(target.owner) as there, there.transaction():
            for role in new:
                await there.execute(f"CREATE ROLE {role} IN ROLE lablink_client")
            for row in roles:
                values = (row["role"], row["may_enter"], verifiers.get(row["role"]), row["wish"])
                await there.execute(await there.fetchval(AS_THERE, *values))
        left_out = [row for row in roles if row["role"] not in verifiers and not row["by_token"]]
        yield [row["hostname"] for row in left_out if row["hostname"]]
    except BaseException:
        await _drop(target, new)
        raise


async def _verifiers(reader: str, roles: list[str]) -> dict[str, str]:
    """Each role's SCRAM verifier; none where only a superuser may read them."""
    try:
        async with connected(reader) as connection:
            return {row["rolname"]: row["rolpassword"] for row in await connection.fetch(VERIFIERS, roles)}
    except asyncpg.InsufficientPrivilegeError:
        return {}


async def _drop(target: Target, roles: Iterable[str]) -> None:
    async with connected(target.owner) as there:
        for role in roles:
            await there.execute(f"DROP ROLE IF EXISTS {role}")


@asynccontextmanager
async def _entered(dsn: str) -> AsyncIterator[Connection]:
    """A connection to the target, or what stands in the way as UpkeepFailed."""
    async with AsyncExitStack() as opened:
        try:
            connection = await opened.enter_async_context(connected(dsn))
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            why = distrust(error) or (in_words(error) if isinstance(error, OSError) else str(error))
            raise UpkeepFailed(f"The target does not let us in: {why.rstrip('.')}.") from error
        yield connection

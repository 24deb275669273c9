"""Makes LabLink's roles and its database on a server that has neither; may be repeated at any time."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import asyncpg

from allocator.connection import LIMITS
from client.scram import verifier

OWNER = "lablink"
SERVICE = "lablink_app"
READER = "lablink_reader"
CLIENTS = "lablink_client"
DATABASE = "lablink_db"

READERS_AT_ONCE = 10
"""Connections of dashboards, so that they leave some to all others."""

LOCK = 0x1AB12  # any number that nothing else of ours locks
LOCK_TIMEOUT = "120s"

ATTRIBUTES = {
    OWNER: "LOGIN CREATEROLE CREATEDB",
    SERVICE: "LOGIN NOCREATEROLE NOCREATEDB",
    READER: "LOGIN NOCREATEROLE NOCREATEDB",
    CLIENTS: "NOLOGIN NOCREATEROLE NOCREATEDB",
}

# What a managed service may refuse its master user; LabLink runs without them.
COMFORTS = (
    f"GRANT pg_monitor TO {OWNER}",
    f"GRANT pg_signal_backend TO {OWNER}",
    "REVOKE CONNECT, TEMPORARY ON DATABASE postgres FROM PUBLIC",
    "REVOKE CONNECT, TEMPORARY ON DATABASE template1 FROM PUBLIC",
    # The service asks for these itself, but a pooler does not pass that on.
    *(f"ALTER ROLE {SERVICE} SET {name} = '{value}'" for name, value in LIMITS.items()),
    # A server that logs its statements would write down what they are given: codes and PINs.
    f"ALTER ROLE {SERVICE} SET log_parameter_max_length = 0",
    f"ALTER ROLE {READER} CONNECTION LIMIT {READERS_AT_ONCE}",
)

# What would let a machine or reader, whom the server gives no table, fill its disk or its table of locks. The owner
# keeps it: migrate takes an advisory lock, and a dump repeats the REVOKE, at which psql would stop for somebody who has
# no right at all. Who may not revoke it (it is the superuser's, so no managed service's master user may) is told so in
# a WARNING that nobody reads.
NOT_FOR_ALL = f"""
    DO $$
    DECLARE
        harmful text;
    BEGIN
        FOR harmful IN SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace
            AND (proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'pg_logical_emit_message')
                 OR proname ~ '^pg_(try_)?advisory_(xact_)?lock')
        LOOP
            EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', harmful);
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO {OWNER}', harmful);
        END LOOP;
    EXCEPTION WHEN insufficient_privilege THEN
        NULL;
    END $$
"""

INSIDE = f"""
    REVOKE ALL ON SCHEMA public FROM PUBLIC;
    ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} REVOKE ALL ON FUNCTIONS FROM PUBLIC;
    ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} REVOKE ALL ON TYPES FROM PUBLIC;
"""


async def prepare(superuser_dsn: str, passwords: Mapping[str, str], database: str = DATABASE) -> list[str]:
    """Makes what is missing and sets what differs; `passwords` by role name, a role without one cannot log in.

    A managed service's master user will do, who may be `lablink` itself. Returns the statements that were refused and
    can be done without.
    """
    async with _connected(superuser_dsn) as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
        for role in ATTRIBUTES:
            await _make_role(connection, role, passwords.get(role))
        await _join_roles(connection)
        await _make_database(connection, database)
        await connection.execute(access_to(database))
        refused = [statement for statement in COMFORTS if not await _allowed(connection, statement)]
        async with _connected(superuser_dsn, database) as inside:
            await inside.execute(INSIDE)
            await inside.execute(NOT_FOR_ALL)
    return refused


def access_to(database: str) -> str:
    """The statements that say who may connect to `database`; CREATE DATABASE … TEMPLATE does not copy them."""
    return f"""
        REVOKE ALL ON DATABASE {database} FROM PUBLIC;
        GRANT CONNECT ON DATABASE {database} TO {SERVICE}, {READER}, {CLIENTS};
    """


async def _make_role(connection: asyncpg.Connection, role: str, password: str | None) -> None:
    """A role as it should be. One that is already is not altered: its own user may not (PostgreSQL 16)."""
    found = await connection.fetchrow("SELECT * FROM pg_roles WHERE rolname = $1", role)
    if found is None:
        await connection.execute(f"CREATE ROLE {role} {ATTRIBUTES[role]}")
    elif _attributes(found) != ATTRIBUTES[role]:
        await connection.execute(f"ALTER ROLE {role} {ATTRIBUTES[role]}")
    if password:
        await connection.execute(f"ALTER ROLE {role} PASSWORD '{verifier(password)}'")


def _attributes(role: asyncpg.Record) -> str:
    present = {"LOGIN": role["rolcanlogin"], "CREATEROLE": role["rolcreaterole"], "CREATEDB": role["rolcreatedb"]}
    return " ".join(name if there else f"NO{name}" for name, there in present.items())


async def _join_roles(connection: asyncpg.Connection) -> None:
    """Lets the owner admit machines to their group, and lets a master user act for the owner."""
    may_admit = "SELECT pg_has_role($1, $2, 'MEMBER WITH ADMIN OPTION')"
    if not await connection.fetchval(may_admit, OWNER, CLIENTS):
        await connection.execute(f"GRANT {CLIENTS} TO {OWNER} WITH ADMIN OPTION")
    if not await connection.fetchval("SELECT pg_has_role($1, 'USAGE')", OWNER):
        await connection.execute(f"GRANT {OWNER} TO CURRENT_USER")


async def _make_database(connection: asyncpg.Connection, database: str) -> None:
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", database):
        await connection.execute(f"CREATE DATABASE {database} OWNER {OWNER} TEMPLATE template0 ENCODING 'UTF8'")


async def _allowed(connection: asyncpg.Connection, statement: str) -> bool:
    try:
        await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return False
    return True


@asynccontextmanager
async def _connected(dsn: str, database: str | None = None) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn, database=database, server_settings={"lock_timeout": LOCK_TIMEOUT})
    try:
        yield connection
    finally:
        await connection.close()

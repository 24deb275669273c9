"""Makes the roles and the database on an empty server; may be repeated at any time."""

from collections.abc import Mapping

import asyncpg

from client.scram import verifier

OWNER = "lablink"
SERVICE = "lablink_app"
READER = "lablink_reader"
CLIENTS = "lablink_client"
DATABASE = "lablink_db"

ATTRIBUTES = {
    OWNER: "LOGIN CREATEROLE CREATEDB",
    SERVICE: "LOGIN",
    READER: "LOGIN",
    CLIENTS: "NOLOGIN",
}

# What a managed service may refuse its master user; LabLink runs without them.
COMFORTS = (
    "GRANT pg_monitor, pg_signal_backend TO lablink",
    "REVOKE CONNECT, TEMPORARY ON DATABASE postgres FROM PUBLIC",
    "REVOKE CONNECT, TEMPORARY ON DATABASE template1 FROM PUBLIC",
)

INSIDE = """
    ALTER SCHEMA public OWNER TO lablink;
    REVOKE ALL ON SCHEMA public FROM PUBLIC;
    GRANT USAGE ON SCHEMA public TO lablink_app, lablink_reader;
    ALTER DEFAULT PRIVILEGES FOR ROLE lablink REVOKE ALL ON FUNCTIONS FROM PUBLIC;
    ALTER DEFAULT PRIVILEGES FOR ROLE lablink REVOKE ALL ON TYPES FROM PUBLIC;
"""


async def prepare(superuser_dsn: str, passwords: Mapping[str, str], database: str = DATABASE) -> list[str]:
    """Makes what is missing and sets what differs; `passwords` by role name, a role without one cannot log in.

    Works for a managed service's master user too, as far as it is allowed; returns what was refused.
    """
    connection = await asyncpg.connect(superuser_dsn)
    try:
        for role in ATTRIBUTES:
            await _make_role(connection, role, passwords.get(role))
        await _make_database(connection, database)
        refused = [comfort for comfort in COMFORTS if not await _allowed(connection, comfort)]
        await connection.execute(access_to(database))
    finally:
        await connection.close()
    connection = await asyncpg.connect(superuser_dsn, database=database)
    try:
        await connection.execute(INSIDE)
    finally:
        await connection.close()
    return refused


def access_to(database: str) -> str:
    """The statements that say who may connect to `database`; CREATE DATABASE … TEMPLATE does not copy them."""
    return f"""
        REVOKE ALL ON DATABASE {database} FROM PUBLIC;
        GRANT CONNECT ON DATABASE {database} TO lablink_app, lablink_reader, lablink_client;
    """


async def _make_role(connection: asyncpg.Connection, role: str, password: str | None) -> None:
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role):
        await connection.execute(f"CREATE ROLE {role}")
    secret = f" PASSWORD '{verifier(password)}'" if password else ""
    await connection.execute(f"ALTER ROLE {role} {ATTRIBUTES[role]}{secret}")
    if role == CLIENTS:
        await connection.execute(f"GRANT {CLIENTS} TO {OWNER} WITH ADMIN OPTION")


async def _make_database(connection: asyncpg.Connection, database: str) -> None:
    if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", database):
        await connection.execute(f"CREATE DATABASE {database} OWNER {OWNER} TEMPLATE template0 ENCODING 'UTF8'")


async def _allowed(connection: asyncpg.Connection, statement: str) -> bool:
    try:
        await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return False
    return True

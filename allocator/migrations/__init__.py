"""The database's versions: each revision here runs one `V<version>__<description>.sql` of allocator/sql."""

import re
from pathlib import Path

import asyncpg
import sqlalchemy
from alembic import op

SQL = Path(__file__).parent.parent / "sql"

FUNCTION = re.compile(r"^(?:CREATE|CREATE OR REPLACE|DROP) FUNCTION (?:IF EXISTS )?(\w+)\(", re.MULTILINE)
OURS = """
    SELECT string_agg(oid::regprocedure::text, ', ') FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace AND proowner = current_user::regrole AND proname = ANY (:names)
"""


THERE = (
    asyncpg.DuplicateTableError,
    asyncpg.DuplicateFunctionError,
    asyncpg.DuplicateObjectError,
    asyncpg.DuplicateSchemaError,
)
STAMP = ". If its tables are there already, write down of which version they are: lablink db stamp VERSION"


class MigrationFailed(Exception):
    """The database could not be brought to the version asked for, and is as it was."""


def run_script(name: str) -> None:
    """Runs a file of allocator/sql, many statements and all, inside the migration's transaction."""
    context = op.get_context()
    if context.as_sql:
        context.impl.static_output((SQL / name).read_text())
    else:
        execute(op.get_bind(), SQL / name)


def drop_functions() -> None:
    """Drops every function in `public` that a file of ours makes, or made once; an admin's own stay."""
    names = {name for file in SQL.rglob("*.sql") for name in FUNCTION.findall(file.read_text())}
    connection = op.get_bind()
    ours = connection.execute(sqlalchemy.text(OURS), {"names": sorted(names)}).scalar_one()
    connection.exec_driver_sql(f"DROP FUNCTION {ours} CASCADE")  # in one statement: some are in others' way


def execute(connection: sqlalchemy.Connection, file: Path) -> None:
    """Runs a file of many statements in the transaction that `connection` is in.

    SQLAlchemy prepares what it is given, and PostgreSQL prepares one statement at a time; the driver itself takes all.
    """
    script = file.read_text()
    connection.exec_driver_sql("SELECT")  # the adapter opens its transaction with its own first statement
    adapted = connection.connection.dbapi_connection
    try:
        adapted.run_async(lambda driver: driver.execute(script))  # type: ignore[union-attr]
    except asyncpg.PostgresError as error:
        cure = STAMP if isinstance(error, THERE) else ""
        raise MigrationFailed(f"{file.name}{_line(script, error)}: {error}{cure}") from error


def function_files() -> list[Path]:
    """The functions in force, in the order in which they are applied."""
    return sorted((SQL / "functions").glob("*.sql"))


def _line(script: str, error: asyncpg.PostgresError) -> str:
    position = getattr(error, "position", None)
    return f", line {script.count(chr(10), 0, int(position)) + 1}" if position else ""

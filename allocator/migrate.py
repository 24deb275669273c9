"""Brings a database to a version: Alembic's revisions, then the functions, in one transaction and one at a time."""

import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from allocator.migrations import MigrationFailed, execute, function_files

__all__ = ["MigrationFailed", "Step", "downgrade", "history", "offline_sql", "stamp", "upgrade"]

SCRIPTS = Path(__file__).parent / "migrations"
LOCK = 0x1AB11  # any number that nothing else of ours locks
LOCK_VERSION = "LOCK TABLE alembic_version IN EXCLUSIVE MODE"
WAIT_FOR_OTHERS = "SET LOCAL lock_timeout = '120s'"
WAIT_FOR_TABLES = "SET LOCAL lock_timeout = '10s'"
LATEST = "head"
NOTHING = "base"


@dataclass(frozen=True, slots=True)
class Step:
    """One version of the database, and whether this one has it."""

    version: str
    description: str
    applied: bool


async def upgrade(dsn: str, version: str = LATEST) -> str | None:
    """Applies what is missing up to `version`, then every function; returns the version now. `dsn` is the owner's."""
    return await _migrate(dsn, lambda config: _to(version, command.upgrade, config), _apply_functions)


async def downgrade(dsn: str, version: str) -> str | None:
    """Goes back to `version` ("base": an empty database, "-1": one back); the down scripts drop what is not of it."""
    return await _migrate(dsn, lambda config: _to(version, command.downgrade, config))


async def stamp(dsn: str, version: str) -> str | None:
    """Writes down that the database is at `version`, and runs nothing."""
    return await _migrate(dsn, lambda config: command.stamp(config, version))


async def history(dsn: str) -> list[Step]:
    """Every version there is, oldest first. Raises MigrationFailed when the database is at one from the future."""
    try:
        async with _connection(dsn) as connection:
            current = await connection.run_sync(_current)
    except sqlalchemy.exc.DBAPIError as error:
        raise MigrationFailed(f"The version of the database cannot be read: {_reason(error)}") from error
    revisions = _revisions()
    versions = [revision.revision for revision in revisions]
    _require_known(current)
    applied = versions.index(current) + 1 if current else 0
    return [Step(each.revision, each.doc, number < applied) for number, each in enumerate(revisions)]


def offline_sql(version: str = LATEST) -> str:
    """One transaction that brings an empty database to `version`, for an admin who runs it by hand."""
    output = io.StringIO()
    _to(version, command.upgrade, _config(output), sql=True)
    versions, commit, _ = output.getvalue().rpartition("COMMIT;")
    return "\n".join([versions, *(file.read_text() for file in function_files()), commit, ""])


def _to(version: str, go: Callable[..., None], config: Config, **options: bool) -> None:
    """Let Alembic go to `version`. Raises MigrationFailed, in our words, when that is nowhere."""
    try:
        go(config, version, **options)
    except CommandError as error:
        raise MigrationFailed(
            f"There is no version {version} to go to from here: `lablink db history` lists what there is."
        ) from error


async def _migrate(dsn: str, run: Callable[[Config], None], then: Callable[..., None] | None = None) -> str | None:
    try:
        async with _connection(dsn) as connection:
            return await connection.run_sync(_run, run, then)
    except (MigrationFailed, sqlalchemy.exc.DBAPIError, asyncpg.PostgresError) as error:
        sentence = f"The database is as it was: {_reason(error)}"
        await _record_failure(dsn, sentence)
        raise MigrationFailed(sentence) from error


def _run(
    connection: sqlalchemy.Connection, run: Callable[[Config], None], then: Callable[..., None] | None
) -> str | None:
    """One migration, in the transaction of `connection`, while nobody else migrates this database."""
    connection.exec_driver_sql(WAIT_FOR_OTHERS)
    _wait_for_others(connection)
    connection.exec_driver_sql(WAIT_FOR_TABLES)
    before = _current(connection)
    _require_known(before)
    config = _config()
    config.attributes["connection"] = connection
    run(config)
    if then:
        then(connection)
    after = _current(connection)
    _record(connection, before, after)
    return after


def _wait_for_others(connection: sqlalchemy.Connection) -> None:
    """Nobody else migrates this database until the transaction ends.

    The lock is one that only the owner can take. An empty database has none yet, but it has no machines either, whose
    roles could keep an advisory one.
    """
    if not _has(connection, "alembic_version"):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
    if _has(connection, "alembic_version"):
        connection.exec_driver_sql(LOCK_VERSION)


def _has(connection: sqlalchemy.Connection, table: str) -> bool:
    return sqlalchemy.inspect(connection).has_table(table)


def _apply_functions(connection: sqlalchemy.Connection) -> None:
    for file in function_files():
        execute(connection, file)


def _record(connection: sqlalchemy.Connection, before: str | None, after: str | None) -> None:
    if _has(connection, "operations"):
        statement = "INSERT INTO operations (kind, status, finished_at, result) VALUES ('migrate', 'done', clock(), :r)"
        connection.execute(sqlalchemy.text(statement), {"r": json.dumps({"from": before, "to": after})})


async def _record_failure(dsn: str, sentence: str) -> None:
    """Keeps the failed run in `operations`, where there is one to keep it in."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "INSERT INTO operations (kind, status, finished_at, error) VALUES ('migrate', 'failed', clock(), $1)",
            sentence,
        )
    except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError):
        pass  # an empty database, or not ours
    finally:
        await connection.close()


def _reason(error: Exception) -> str:
    """What the database said, without the DETAIL, which may quote a person's row."""
    return str(getattr(error, "orig", None) or error).partition("\nDETAIL:")[0]


def _current(connection: sqlalchemy.Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _revisions() -> list[Script]:
    """Every version there is, oldest first."""
    return list(ScriptDirectory.from_config(_config()).walk_revisions())[::-1]


def _require_known(version: str | None) -> None:
    """Raises MigrationFailed when the database is at a version from the future."""
    if version and version not in {each.revision for each in _revisions()}:
        raise MigrationFailed(
            f"The database is at version {version}, which this LabLink does not know: use a newer one."
        )


def _config(output: io.StringIO | None = None) -> Config:
    config = Config(output_buffer=output)
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    return config


@asynccontextmanager
async def _connection(dsn: str) -> AsyncIterator[AsyncConnection]:
    """One transaction, committed at the end of the block."""
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(dsn), poolclass=NullPool
    )
    async with engine.begin() as connection:
        yield connection

"""Brings a database to a version: Alembic's revisions, then the functions, in one transaction and one at a time."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
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

from allocator.blockers import Seen, Tell, watched
from allocator.migrations import MigrationFailed, execute, function_files

__all__ = ["MigrationFailed", "Version", "downgrade", "history", "offline_sql", "stamp", "upgrade"]

SCRIPTS = Path(__file__).parent / "migrations"
LOCK = 0x1AB11  # any number that nothing else of ours locks
LOCK_VERSION = "LOCK TABLE alembic_version IN EXCLUSIVE MODE"
WAIT_FOR_OTHERS = "SET LOCAL lock_timeout = '120s'"
WAIT_FOR_TABLES = "SET LOCAL lock_timeout = '{}s'"
READ = ("lease_views", "vm_views")
WRITTEN = ("join_tokens", "pools", "vm_heartbeats", "leases", "vms", "lease_secrets", "vm_roles", "events")
"""What requests and machines read and write, in the order in which most of them do. It is locked before anything is
changed, so that few who hold some of it come to wait for the rest."""
WAITS_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.2, 1.2, 1.2)
"""How long the tries wait for a lock, and then for the next try: whoever asks meanwhile waits too, and may for 2 s.

Where we and a request wait for each other, a short wait ends that before PostgreSQL ends one of the two (after 1 s); a
long one has autovacuum give way (after 1 s too).
"""
IN_THE_WAY = ("55P03", "40P01")  # a lock that was not to be had in time, a deadlock
SOMEBODY = "Others hold what this needs, again and again. See who: lablink db locks"
LATEST = "head"
NOTHING = "base"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of the database, and whether this one has it."""

    version: str
    description: str
    applied: bool


async def upgrade(dsn: str, tell: Tell | None = None) -> str | None:
    """Applies the versions that are missing, then every function; returns the version now. `dsn` is the owner's.

    `tell` hears for whom it waits. There is no stopping at an earlier version, for the functions are the newest one's.
    """
    return await _migrate(dsn, Seen(tell), lambda config: _to(LATEST, command.upgrade, config), _apply_functions)


async def downgrade(dsn: str, version: str, tell: Tell | None = None) -> str | None:
    """Goes back to `version` ("base": an empty database, "-1": one back); the down scripts drop what is not of it."""
    return await _migrate(dsn, Seen(tell), lambda config: _to(version, command.downgrade, config))


async def stamp(dsn: str, version: str) -> str | None:
    """Writes down that the database is at `version`, and runs nothing."""
    return await _migrate(dsn, Seen(), lambda config: _to(version, command.stamp, config))


async def history(dsn: str) -> list[Version]:
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
    return [Version(each.revision, each.doc, number < applied) for number, each in enumerate(revisions)]


def offline_sql(since: str = NOTHING) -> str:
    """One transaction that brings a database from version `since` to the newest, for an admin who runs it by hand."""
    _require_known(None if since == NOTHING else since)
    output = io.StringIO()
    _to(f"{since}:{LATEST}", command.upgrade, _config(output), sql=True)
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


class _InTheWay(Exception):
    """Somebody holds what the migration needs: it may have it at the next try."""


async def _migrate(
    dsn: str, seen: Seen, run: Callable[[Config], None], then: Callable[..., None] | None = None
) -> str | None:
    try:
        return await _migrate_in_turn(dsn, seen, run, then)
    except (MigrationFailed, sqlalchemy.exc.DBAPIError, asyncpg.PostgresError) as error:
        sentence = f"The database is as it was: {_reason(error)}"
        await _record_failure(dsn, sentence)
        raise MigrationFailed(sentence) from error


async def _migrate_in_turn(
    dsn: str, seen: Seen, run: Callable[[Config], None], then: Callable[..., None] | None
) -> str | None:
    """Tries again while somebody is in the way, and lets others pass. Raises MigrationFailed, saying who it is."""
    for wait in WAITS_SECONDS:
        try:
            async with _connection(dsn) as connection, watched(dsn, await _pid(connection), seen):
                return await connection.run_sync(_run, run, then, wait)
        except _InTheWay:
            await asyncio.sleep(wait)
    raise MigrationFailed(seen.blocker.advice if seen.blocker else SOMEBODY)


def _run(
    connection: sqlalchemy.Connection, run: Callable[[Config], None], then: Callable[..., None] | None, wait: float
) -> str | None:
    """One migration, in the transaction of `connection`, while nobody else migrates this database."""
    connection.exec_driver_sql(WAIT_FOR_OTHERS)
    _wait_for_others(connection)
    before = _current(connection)
    _require_known(before)
    config = _config()
    config.attributes["connection"] = connection
    with _in_the_way():
        _lock(connection, wait, only_functions=then is not None and before == _newest())
        run(config)
        if then:
            then(connection)
    after = _current(connection)
    _record(connection, before, after)
    return after


@contextmanager
def _in_the_way() -> Iterator[None]:
    try:
        yield
    except (MigrationFailed, sqlalchemy.exc.DBAPIError) as error:
        cause = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error.__cause__
        if getattr(cause, "sqlstate", None) in IN_THE_WAY:
            raise _InTheWay from error
        raise


def _lock(connection: sqlalchemy.Connection, wait: float, *, only_functions: bool) -> None:
    """Keep everybody from writing; from reading too, unless only functions and triggers are made anew."""
    names, mode = (WRITTEN, "SHARE ROW EXCLUSIVE") if only_functions else (READ + WRITTEN, "ACCESS EXCLUSIVE")
    connection.exec_driver_sql(WAIT_FOR_TABLES.format(wait))
    if there := [name for name in names if _has(connection, name)]:
        connection.exec_driver_sql(f"LOCK TABLE {', '.join(there)} IN {mode} MODE")


async def _pid(connection: AsyncConnection) -> int:
    """The server's process that serves it."""
    own = (await connection.get_raw_connection()).driver_connection
    assert own is not None
    return int(own.get_server_pid())


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
    connection = await asyncpg.connect(dsn, server_settings={"lock_timeout": f"{WAITS_SECONDS[-1]}s"})
    try:
        await connection.execute(
            "INSERT INTO operations (kind, status, finished_at, error) VALUES ('migrate', 'failed', clock(), $1)",
            sentence,
        )
    except (asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError, asyncpg.LockNotAvailableError):
        pass  # an empty database, not ours, or with somebody in the way here too
    finally:
        await connection.close()


def _reason(error: Exception) -> str:
    """What the database said, without the DETAIL, which may quote a person's row."""
    return str(getattr(error, "orig", None) or error).partition("\nDETAIL:")[0]


def _current(connection: sqlalchemy.Connection) -> str | None:
    """The version that is written down. Raises MigrationFailed when there are two."""
    try:
        return MigrationContext.configure(connection).get_current_revision()
    except CommandError as error:
        raise MigrationFailed(
            "Two versions are written down. Keep the right one: DELETE FROM alembic_version WHERE version_num <> …"
        ) from error


def _revisions() -> list[Script]:
    """Every version there is, oldest first."""
    return list(ScriptDirectory.from_config(_config()).walk_revisions())[::-1]


def _newest() -> str:
    return str(_revisions()[-1].revision)


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

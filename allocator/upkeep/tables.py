"""How large the tables are, and what keeps them in shape: vacuum and reindex."""

import time
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from allocator.operations import Tell
from client.network import Connection

AS_LONG_AS_IT_TAKES = 86_400.0

# Nobody may queue up behind us while we wait for a table, and nothing runs on when we are gone.
CAREFULLY = "SET lock_timeout = '5s'; SET client_connection_check_interval = '2s'"

SIZES = """
    SELECT c.oid::regclass::text AS "table", greatest(c.reltuples, 0)::bigint AS rows,
           coalesce(s.n_dead_tup, 0) AS dead,
           pg_table_size(c.oid) AS table_bytes, pg_indexes_size(c.oid) AS index_bytes,
           pg_total_relation_size(c.oid) AS total_bytes,
           greatest(s.last_vacuum, s.last_autovacuum) AS vacuumed,
           greatest(s.last_analyze, s.last_autoanalyze) AS analyzed
    FROM pg_class c LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid
    WHERE c.relkind IN ('r', 'm') AND c.relnamespace IN ('public'::regnamespace, 'client_api'::regnamespace)
      AND c.relpersistence <> 't'
    ORDER BY total_bytes DESC, 1
"""

FOUND = """
    SELECT c.oid::regclass::text FROM pg_class c
    WHERE c.relkind IN ('r', 'm') AND pg_has_role(c.relowner, 'USAGE')
      AND c.relnamespace IN ('public'::regnamespace, 'client_api'::regnamespace)
      AND ($1::text IS NULL OR c.oid = to_regclass($1)
           OR c.oid IN (SELECT relid FROM pg_partition_tree(to_regclass($1))))
    ORDER BY 1
"""

# What a REINDEX CONCURRENTLY leaves behind that was interrupted (PostgreSQL's manual, REINDEX).
LEFT_BEHIND = r"""
    SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid = $1::text::regclass AND NOT i.indisvalid AND c.relname ~ '_cc(new|old)\d*$'
"""


class NoSuchTable(Exception):
    """There is no such table, or it is not the owner's."""


@dataclass(frozen=True, slots=True)
class Size:
    """One table: rows as PostgreSQL estimates them, dead ones among them, bytes."""

    table: str
    rows: int
    dead: int
    table_bytes: int
    index_bytes: int
    total_bytes: int
    vacuumed: datetime | None
    analyzed: datetime | None


@dataclass(frozen=True, slots=True)
class Sizes:
    """The whole database, and its tables, the largest first."""

    database: str
    bytes: int
    tables: list[Size]


@dataclass(frozen=True, slots=True)
class Treated:
    """One table that was vacuumed or whose indexes were built anew."""

    table: str
    bytes_before: int
    bytes_after: int
    seconds: float


async def sizes(connection: Connection) -> Sizes:
    """How large everything is."""
    row = await connection.fetchrow(
        "SELECT current_database()::text AS name, pg_database_size(current_database()) AS bytes"
    )
    assert row is not None
    return Sizes(row["name"], row["bytes"], [Size(**each) for each in await connection.fetch(SIZES)])


async def vacuum(connection: Connection, table: str | None, tell: Tell, *, full: bool = False) -> list[Treated]:
    """Vacuum and analyze one table, or all. `full` gives the room back, and keeps everybody out of the table meanwhile.

    Raises NoSuchTable; asyncpg.LockNotAvailableError when somebody keeps the table for more than 5 s.
    """
    how = "FULL, ANALYZE" if full else "ANALYZE"
    return await _each(connection, table, f"VACUUM ({how}) {{}}", tell)


async def reindex(connection: Connection, table: str | None, tell: Tell) -> list[Treated]:
    """Build the indexes of one table, or of all, anew while they are in use. Raises NoSuchTable."""
    return await _each(connection, table, "REINDEX TABLE CONCURRENTLY {}", tell)


async def _each(connection: Connection, table: str | None, statement: str, tell: Tell) -> list[Treated]:
    await connection.execute(CAREFULLY)
    names = await _tables(connection, table)
    treated = []
    for number, name in enumerate(names):
        await tell(number, len(names), name)
        treated.append(await _treat(connection, name, statement.format(name)))
    return treated


async def _tables(connection: Connection, table: str | None) -> list[str]:
    """Names fit to stand in a statement: the one asked for with its partitions, or all."""
    try:
        names = [row[0] for row in await connection.fetch(FOUND, table)]
    except (asyncpg.InvalidNameError, asyncpg.PostgresSyntaxError):
        names = []
    if not names:
        raise NoSuchTable(f"There is no table {table} of LabLink's. See which there are: lablink db sizes")
    return names


async def _treat(connection: Connection, name: str, statement: str) -> Treated:
    began, before = time.monotonic(), await _bytes(connection, name)
    try:
        await _drop_left_behind(connection, name)
        await connection.execute(statement, timeout=AS_LONG_AS_IT_TAKES)
    finally:
        await _drop_left_behind(connection, name)
    return Treated(name, before, await _bytes(connection, name), time.monotonic() - began)


async def _drop_left_behind(connection: Connection, name: str) -> None:
    for row in await connection.fetch(LEFT_BEHIND, name):
        await connection.execute(f"DROP INDEX CONCURRENTLY {row[0]}", timeout=AS_LONG_AS_IT_TAKES)


async def _bytes(connection: Connection, name: str) -> int:
    return int(await connection.fetchval("SELECT pg_total_relation_size($1::text::regclass)", name))

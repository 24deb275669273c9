"""Puts a backup into an empty database, and looks whether all of it has arrived."""

import re
import tempfile
from pathlib import Path

from allocator import migrate
from allocator.operations import Tell
from allocator.upkeep import UpkeepFailed, programs
from allocator.upkeep.backup import Backup, count, tables
from allocator.upkeep.reach import connected

JOBS = 2
SECTIONS = (["--section=pre-data", "--section=data"], ["--section=post-data"])
"""One after the other: with more than one job, a trigger on the history may else come before the rows of its months."""
AT_TABLE = re.compile(r'processing data for table "(.+)"')

NOT_OURS = re.compile(
    r"\d+; \d+ \d+ (?:EXTENSION |COMMENT - EXTENSION |EVENT TRIGGER |ACL pg_catalog |ACL - LANGUAGE |"
    r"DEFAULT ACL .*(?<! lablink)$)"
)
"""Lines of a dump's table of contents that the owner of the database cannot restore, and that nothing of ours needs."""

SAFETY = "SELECT rule, what FROM broken_invariants() WHERE rule LIKE 'I%' ORDER BY rule, what LIMIT 20"
"""What must hold at any age; what is too late by now (L1 …) was not when the backup was made."""


async def load(dsn: str, backup: Backup, file: Path, tell: Tell) -> None:
    """Restore `file` into the empty database at `dsn`. Raises UpkeepFailed."""
    async with connected(dsn) as connection:
        server = connection.get_server_version().major
    if server < backup.server_version:
        raise UpkeepFailed(
            f"The backup {backup.name} is of PostgreSQL {backup.server_version}, and this server is of {server}: "
            "restore it on one of the same version or a newer one."
        )
    program = programs.find("pg_restore", max(server, backup.dump_version), tls=programs.over_tls(dsn))
    total, done = len(backup.rows), 0

    async def hear(line: str) -> None:
        nonlocal done
        if found := AT_TABLE.search(line):
            done += 1
            await tell(min(done, total), total, found[1])

    contents = await programs.run(program, ["--list", str(file)], dsn)
    with tempfile.NamedTemporaryFile("w", prefix="lablink-contents-") as wanted:
        wanted.writelines(line for line in contents.splitlines(keepends=True) if not NOT_OURS.match(line))
        wanted.flush()
        options = ["--exit-on-error", "--no-owner", "--no-password", "--verbose", f"--jobs={JOBS}"]
        where = f"--dbname={programs.environment(dsn)['PGDATABASE']}"
        for sections in SECTIONS:
            command = [*options, *sections, where, f"--use-list={wanted.name}", str(file)]
            await programs.run(program, command, dsn, hear)
    async with connected(dsn) as connection:
        await connection.execute("ANALYZE")


async def missing(dsn: str, backup: Backup) -> list[str]:
    """What is not in the database at `dsn` as the backup's manifest says, in words."""
    async with connected(dsn) as connection:
        there = await tables(connection)  # a manifest may name anything
        counts = {table: await count(connection, table) if table in there else 0 for table in backup.rows}
    return [
        f"{table} has {counts[table]} rows instead of {rows}"
        for table, rows in backup.rows.items()
        if counts[table] != rows
    ]


async def broken(dsn: str) -> list[str]:
    """Every promise that the data at `dsn` breaks, in words; none after a way down, where rules come with a migrate."""
    async with connected(dsn) as connection:
        if not await connection.fetchval("SELECT to_regprocedure('broken_invariants()') IS NOT NULL"):
            return []
        return [f"{row['rule']}: {row['what']}" for row in await connection.fetch(SAFETY)]


async def refuse_unknown_version(dsn: str, backup: Backup) -> None:
    """Raises UpkeepFailed when a newer LabLink made the backup."""
    if backup.version not in [step.version for step in await migrate.history(dsn)]:
        raise UpkeepFailed(
            f"The backup {backup.name} is of version {backup.version}, which this LabLink does not know: "
            "use the one that made it, or a newer one."
        )

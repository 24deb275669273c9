"""Tries a backup out in a scratch database: that all of it comes back, and that its rows survive the migrations."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from allocator import migrate
from allocator.migrations import MigrationFailed
from allocator.operations import Tell
from allocator.upkeep.backup import Backup, checked_file, named
from allocator.upkeep.history import Head, broken_chain
from allocator.upkeep.load import broken, load, missing, refuse_unknown_version
from allocator.upkeep.reach import connected
from allocator.upkeep.scratch import scratch_database
from allocator.upkeep.storage import Storage
from allocator.upkeep.verify import schema_findings

OF_THE_VERSION = ("alembic_version", "operations", "sweeps", "vm_transitions", "lease_transitions")
"""Tables that a migration writes to: what is in them goes with the version."""

COLUMNS = """
    SELECT string_agg(format('%I', attname), ', ' ORDER BY attnum) FROM pg_attribute
    WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped
"""
CONTENTS = "SELECT count(*), coalesce(sum(hashtextextended(ROW({columns})::text, 0)), 0)::text AS checksum FROM {table}"

Contents = dict[str, tuple[int, str]]
"""Rows of each table and their checksum, in which their order does not count."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step, the version that the database had after it, and how long it took."""

    step: str
    version: str | None
    seconds: float


@dataclass(slots=True)
class Rehearsal:
    """What a rehearsal showed. `problems` are sentences; none when all went well. `pending` are versions to go to."""

    backup: str
    pending: list[str] | None = None
    steps: list[Step] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def problem(self) -> str | None:
        """What it failed with, on one line."""
        return "; ".join(self.problems) or None

    @contextmanager
    def step(self, name: str, version: str | None) -> Iterator[None]:
        """One step, timed."""
        began = time.monotonic()
        yield
        self.steps.append(Step(name, version, round(time.monotonic() - began, 3)))


async def verify(dsn: str, storage: Storage, name: str, tell: Tell) -> Rehearsal:
    """Restore the backup into a scratch database on the server of `dsn` (the owner's), and look at rows and schema.

    Functions are renewed before, as a restore does: a backup may be older than they are.
    """
    backup = await named(storage, name)
    async with _restored(dsn, storage, backup, tell) as (scratch, rehearsal):
        latest = (await migrate.history(dsn))[-1].version
        if backup.version == latest and await _migrated(scratch, "up", latest, rehearsal):
            async with connected(scratch) as connection:
                found = await schema_findings(connection, dsn)
            rehearsal.problems += [each.what for each in found if each.wrong]
        return rehearsal


async def rehearse(dsn: str, storage: Storage, name: str, tell: Tell) -> Rehearsal:
    """The same, then migrate the scratch database up, down and up, and look what became of its rows."""
    backup = await named(storage, name)
    await refuse_unknown_version(dsn, backup)
    async with _restored(dsn, storage, backup, tell) as (scratch, rehearsal):
        columns = await _columns(scratch, backup)
        before = await _contents(scratch, columns)
        versions = await migrate.history(scratch)
        rehearsal.pending = [each.version for each in versions if not each.applied]
        steps = [("up", versions[-1].version)]
        if rehearsal.pending:
            steps += [("down", backup.version), ("up again", versions[-1].version)]
        for number, (step, version) in enumerate(steps):
            await tell(number, len(steps), f"migrating {step}")
            if not await _migrated(scratch, step, version, rehearsal):
                break
            if version == backup.version:
                rehearsal.problems += _differences(before, await _contents(scratch, columns), step)
        rehearsal.problems += [f"after the migrations, {each}" for each in await broken(scratch)]
        return rehearsal


@asynccontextmanager
async def _restored(dsn: str, storage: Storage, backup: Backup, tell: Tell) -> AsyncIterator[tuple[str, Rehearsal]]:
    """The backup in a scratch database, and what that showed."""
    rehearsal = Rehearsal(backup.name)
    async with checked_file(dsn, storage, backup, tell) as file, scratch_database(dsn) as scratch:
        with rehearsal.step("restore", backup.version):
            await load(scratch, backup, file, tell)
        rehearsal.problems += await missing(scratch, backup) + await broken(scratch)
        rehearsal.problems += await _broken_history(scratch, backup, tell)
        yield scratch, rehearsal


async def _broken_history(scratch: str, backup: Backup, tell: Tell) -> list[str]:
    """What in the history that came back is not what was sealed."""
    if backup.head is None:
        return []
    async with connected(scratch) as connection:
        return await broken_chain(connection, head=Head.of(backup.head), tell=tell)


async def _migrated(scratch: str, step: str, version: str, rehearsal: Rehearsal) -> bool:
    """Whether the database came to `version`; if not, that is a problem of the rehearsal."""
    try:
        with rehearsal.step(step, version):
            await (migrate.downgrade(scratch, version) if step == "down" else migrate.upgrade(scratch))
    except MigrationFailed as failure:
        rehearsal.problems.append(f"migrating {step} to version {version} failed: {failure}")
        return False
    return True


async def _columns(scratch: str, backup: Backup) -> dict[str, str]:
    """The columns of each table whose rows must survive."""
    surviving = [table for table in backup.rows if table.removeprefix("public.") not in OF_THE_VERSION]
    async with connected(scratch) as connection:
        return {table: await connection.fetchval(COLUMNS, table) for table in surviving}


async def _contents(scratch: str, columns: dict[str, str]) -> Contents:
    async with connected(scratch) as connection:
        queries = {table: CONTENTS.format(columns=names, table=table) for table, names in columns.items()}
        return {table: tuple(await connection.fetchrow(query) or ()) for table, query in queries.items()}


def _differences(before: Contents, after: Contents, step: str) -> Iterator[str]:
    """What is not as it was, in words."""
    for table, (rows, checksum) in before.items():
        if after[table] != (rows, checksum):
            now = after[table][0]
            what = f"has {now} rows instead of {rows}" if now != rows else "has other contents than before"
            yield f"after migrating {step}, {table} {what}"

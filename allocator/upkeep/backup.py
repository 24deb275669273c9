"""Backups: a dump of the whole database in PostgreSQL's custom format, and a manifest that says what must be in it."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from allocator.operations import Tell
from allocator.tasks import to_its_end
from allocator.upkeep import UpkeepFailed, programs
from allocator.upkeep.reach import connected
from allocator.upkeep.storage import PARTIAL, Storage, sha256_of
from client.network import Connection

LEFT_OUT = ("lease_secrets", "join_tokens", "join_codes", "admins")
"""Tables whose rows are never kept: codes and PINs; invitations, join codes and admins: those that were taken back
would count again after a restore."""

LATEST = "latest"
DUMP, MANIFEST = ".dump", ".json"
DUMP_LOCK_SECONDS = 30
AT_TABLE = re.compile(r'dumping contents of table "(.+)"')

TABLES = """
    SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
      AND NOT (n.nspname = 'public' AND c.relname = ANY ($1))
    ORDER BY 1
"""
ABOUT = """
    SELECT current_database() AS database, current_setting('server_version_num')::integer / 10000 AS server_version,
           clock_timestamp() AS taken_at, pg_export_snapshot() AS snapshot
"""
SEALS_ITS_HISTORY = "SELECT to_regprocedure('history_head()') IS NOT NULL"
HEAD = "SELECT format('%s:%s', seal, sha256) FROM history_head()"
WRITTEN_DOWN = """
    SELECT result ->> 'sha256' FROM operations WHERE kind = 'backup' AND status = 'done' AND result ->> 'name' = $1
"""


@dataclass(frozen=True, slots=True)
class Backup:
    """What the manifest says."""

    name: str
    database: str
    version: str
    """Of LabLink's tables."""
    server_version: int
    dump_version: int
    """Of the pg_dump that made it: an older pg_restore cannot read it."""
    taken_at: datetime
    size: int
    """Bytes of the dump."""
    sha256: str
    rows: dict[str, int]
    head: str | None = None
    """Of the history: `lablink verify --head` takes it. None where nothing was sealed yet."""

    @classmethod
    def of(cls, manifest: bytes) -> "Backup":
        """The backup that a manifest describes. Raises ValueError, KeyError or TypeError when it is none."""
        facts = json.loads(manifest)
        return cls(**facts | {"taken_at": datetime.fromisoformat(facts["taken_at"])})

    def summary(self) -> dict[str, object]:
        """What an operation's row keeps of it."""
        return {"name": self.name, "size": self.size, "sha256": self.sha256}

    def manifest(self) -> bytes:
        """The same as the file that lies beside the dump."""
        return json.dumps(asdict(self), default=str, indent=2).encode() + b"\n"


async def back_up(dsn: str, storage: Storage, tell: Tell, keep_days: int | None = None) -> Backup:
    """Make a backup, then remove those of the same database that are older than `keep_days`. `dsn` is the owner's."""
    async with _snapshot(dsn) as (connection, snapshot, facts):
        program = programs.find("pg_dump", facts["server_version"], tls=programs.over_tls(dsn))
        name = f"{facts['database']}-{facts['taken_at'].astimezone(UTC):%Y%m%dT%H%M%S.%f}"[:-3] + "Z"
        rows = {table: await count(connection, table) for table in await tables(connection)}
        with storage.workspace() as place:
            file = place / f".{name}{DUMP}{PARTIAL}"
            try:
                await _dump(program, dsn, snapshot, file, len(rows), tell)
                size, digest = file.stat().st_size, await checksum(file)
                made = Backup(name, rows=rows, dump_version=program.version, size=size, sha256=digest, **facts)
                await _publish(storage, made, file, tell)
            finally:
                file.unlink(missing_ok=True)
    await remove_old(storage, made, keep_days)
    return made


async def backups(storage: Storage) -> list[Backup]:
    """Every complete backup there is, oldest first."""
    names = set(await storage.names())
    manifests = [name for name in names if name.endswith(MANIFEST) and name.removesuffix(MANIFEST) + DUMP in names]
    found = []
    for name in manifests:
        with suppress(ValueError, KeyError, TypeError):  # somebody else's file
            made = Backup.of(await storage.read(name))
            if made.name + MANIFEST == name:  # another name would lead to another file
                found.append(made)
    return sorted(found, key=lambda each: each.taken_at)


async def named(storage: Storage, name: str) -> Backup:
    """The backup of that name, or the newest for "latest". Raises UpkeepFailed."""
    there = await backups(storage)
    fit = there[-1:] if name == LATEST else [each for each in there if each.name == name]
    if not there:
        raise UpkeepFailed(f"{storage} has no complete backup. Make one: lablink db backup --to {storage}")
    if not fit:
        raise UpkeepFailed(
            f"{storage} has no complete backup {name}. The newest is {there[-1].name}. "
            f"See them: lablink db backups --from {storage}"
        )
    return fit[0]


@asynccontextmanager
async def checked_file(dsn: str, storage: Storage, backup: Backup, tell: Tell) -> AsyncIterator[Path]:
    """The dump, on this machine, unchanged since it was made. Raises UpkeepFailed.

    Whoever can write where backups lie can forge a manifest with its checksum, but not what the database at `dsn` wrote
    down when it made the backup.
    """
    if await _written_down(dsn, backup.name) not in (None, backup.sha256):
        raise UpkeepFailed(
            f"The backup {backup.name} is not the one that this database made: somebody put another in its place. "
            "Take one from elsewhere."
        )
    async with storage.fetched(backup.name + DUMP, tell) as file:
        if file.stat().st_size != backup.size or await checksum(file) != backup.sha256:
            raise UpkeepFailed(
                f"The backup {backup.name} is damaged: its checksum is not that of its manifest. Take another one."
            )
        yield file


async def _written_down(dsn: str, name: str) -> str | None:
    """The checksum of the backup that the database at `dsn` made under that name; None when it knows of none."""
    async with connected(dsn) as connection:
        with suppress(asyncpg.UndefinedTableError, asyncpg.InsufficientPrivilegeError):
            found: str | None = await connection.fetchval(WRITTEN_DOWN, name)
            return found
    return None


async def remove_old(storage: Storage, newest: Backup, keep_days: int | None) -> list[str]:
    """Remove what is older than `keep_days` before `newest`, which stays. Returns the names."""
    if keep_days is None:
        return []
    limit = newest.taken_at - timedelta(days=keep_days)
    old = [each.name for each in await backups(storage) if each.database == newest.database and each.taken_at < limit]
    for name in old:
        await _remove(storage, name)
    return old


async def tables(connection: Connection) -> list[str]:
    """The tables whose rows a backup keeps, as SQL writes their names."""
    return [row["name"] for row in await connection.fetch(TABLES, LEFT_OUT)]


async def count(connection: Connection, table: str) -> int:
    """How many rows a table has."""
    return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))


async def checksum(file: Path) -> str:
    """The SHA-256 of a file."""
    return (await asyncio.to_thread(sha256_of, file)).hex()


@asynccontextmanager
async def _snapshot(dsn: str) -> AsyncIterator[tuple[Connection, str, dict[str, Any]]]:
    """A connection that sees the moment of the backup, that moment's name for pg_dump, and facts for the manifest."""
    async with connected(dsn) as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        facts = dict(await connection.fetchrow(ABOUT) or {})
        if await connection.fetchval(SEALS_ITS_HISTORY):
            facts["head"] = await connection.fetchval(HEAD)
        facts["version"] = await connection.fetchval("SELECT version_num FROM alembic_version")
        yield connection, facts.pop("snapshot"), facts


async def _dump(program: programs.Program, dsn: str, snapshot: str, file: Path, tables_there: int, tell: Tell) -> None:
    """Run pg_dump on the snapshot."""
    options = ["--format=custom", f"--file={file}", f"--snapshot={snapshot}", "--verbose", "--no-password"]
    options += [f"--lock-wait-timeout={DUMP_LOCK_SECONDS}s", *(f"--exclude-table-data=public.{t}" for t in LEFT_OUT)]
    done = 0

    async def hear(line: str) -> None:
        nonlocal done
        if found := AT_TABLE.search(line):
            await tell(done, tables_there, found[1])
            done += 1

    file.touch(mode=0o600)
    await programs.run(program, options, dsn, hear)
    await tell(tables_there, tables_there, "dumped")


async def _publish(storage: Storage, backup: Backup, file: Path, tell: Tell) -> None:
    """The manifest first, so that what a killed process leaves is small and looks like nothing."""
    try:
        await storage.write(backup.name + MANIFEST, backup.manifest())
        await storage.put(backup.name + DUMP, file, tell)
    except BaseException:
        await to_its_end(_remove(storage, backup.name))
        raise


async def _remove(storage: Storage, name: str) -> None:
    for ending in (DUMP, MANIFEST):
        await storage.delete(name + ending)

"""Restores a backup beside the database and puts it in its place at the end: until then nothing has changed."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import asyncpg

from allocator import migrate
from allocator.operations import Operation
from allocator.upkeep import UpkeepFailed
from allocator.upkeep.backup import Backup, checked_file, named
from allocator.upkeep.load import broken, load, missing, refuse_unknown_version
from allocator.upkeep.pause import paused
from allocator.upkeep.reach import connected, database_of
from allocator.upkeep.scratch import BEGINNING, scratch_database
from allocator.upkeep.storage import Storage
from allocator.upkeep.swap import forget_secrets, swap
from client.network import Connection

IN_USE = """
    SELECT (SELECT count(*) FROM leases WHERE live) AS leases,
           (SELECT count(*) FROM vms v JOIN pools p ON p.name = v.pool LEFT JOIN vm_heartbeats h ON h.vm_id = v.id
            WHERE v.role IN (SELECT usename FROM pg_stat_activity WHERE datname = current_database())
               OR to_jsonb(p) ->> 'transport' <> 'direct' AND h.seen_at > clock() - fresh_for()) AS machines
"""
"""Machines that are logged in, and those that are heard over the hub, which a database before version 8 has not."""
REPLACED = """
    SELECT (SELECT coalesce(max(epoch), 0) FROM vms) AS floor,
           (SELECT coalesce(array_agg(role ORDER BY role), '{}') FROM vm_roles) AS roles,
           (SELECT coalesce(array_agg((to_jsonb(r) ->> 'hub_sha256')::bytea ORDER BY role), '{}')
            FROM vm_roles r) AS tokens
"""
"""A database before version 8 has no tokens."""
MACHINES_MAY_WRITE = "SELECT has_function_privilege('lablink_client', 'pg_catalog.lo_creat(integer)', 'EXECUTE')"
SETTLE = "SELECT * FROM settle_restored($1, $2, $3)"
KEEP_TOKENS = "SELECT keep_present_hub_tokens($1, $2)"
RUN = "SELECT started_by, started_at FROM operations WHERE id = $1"
CLOSE_THAT_OF_THE_BACKUP = """
    UPDATE operations SET status = CASE kind WHEN 'backup' THEN 'done' ELSE 'failed' END, finished_at = clock(),
        error = CASE WHEN kind <> 'backup' THEN 'it ran while the backup was made' END
    WHERE status = 'running'
"""
WRITE_DOWN = """
    INSERT INTO operations (kind, status, started_by, started_at, finished_at, result)
    VALUES ('restore', 'done', $1, $2, clock(), $3)
"""


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of it."""

    backup: str
    taken_at: datetime
    version: str | None
    """Of LabLink's tables, now."""
    kept_as: str
    """The name that the database of before has now."""
    leases_failed: int
    vms_to_invite: list[str]
    """Machines whose role this server does not have: a backup holds no passwords."""
    deploy_again: bool
    """Whether machines got back a right that only a superuser can take from them in each new database."""


async def restore(dsn: str, storage: Storage, name: str, operation: Operation, *, force: bool = False) -> Restored:
    """Replace the database at `dsn` (the owner's) by the backup `name`. Raises UpkeepFailed; then all is as it was.

    A database with live leases or connected machines is replaced only with `force`. Nothing is accepted meanwhile.
    """
    backup = await named(storage, name)
    await refuse_unknown_version(dsn, backup)
    kept = f"{database_of(dsn)[:BEGINNING]}_before_restore_{datetime.now(UTC):%Y%m%d%H%M%S}"
    async with checked_file(dsn, storage, backup, operation.progress) as file, paused(dsn) as pause:
        if not force:
            await _refuse_if_in_use(pause, database_of(dsn))
        async with scratch_database(dsn, "restoring") as successor:
            await load(successor, backup, file, operation.progress)
            await _refuse_if_incomplete(successor, backup)
            restored = await _settle(successor, backup, kept, pause, operation)
            await operation.leave()
            await swap(dsn, database_of(successor), kept, pause)
    await forget_secrets(dsn, kept)
    return restored


async def _refuse_if_in_use(pause: Connection, name: str) -> None:
    try:
        use = await pause.fetchrow(IN_USE)
    except asyncpg.UndefinedTableError:
        return
    if use and (use["leases"] or use["machines"]):
        raise UpkeepFailed(
            f"{name} is in use: live leases: {use['leases']}, connected machines: {use['machines']}. "
            "A restore fails those leases and has every machine cleaned; if that is meant, add --force."
        )


async def _refuse_if_incomplete(successor: str, backup: Backup) -> None:
    wrong = await missing(successor, backup)
    if wrong:
        raise UpkeepFailed(f"The backup {backup.name} did not arrive as it was made: {'; '.join(wrong)}.")


async def _settle(successor: str, backup: Backup, kept: str, pause: Connection, operation: Operation) -> Restored:
    """Bring the restored data to this version and to the present, and check it."""
    version = await migrate.upgrade(successor)
    floor, roles, tokens = await _replaced(pause)
    run = await operation.rows.fetchrow(RUN, operation.id)
    assert run
    async with connected(successor) as connection, connection.transaction():
        cost = await connection.fetchrow(SETTLE, backup.name, floor, roles)
        assert cost
        await connection.execute(KEEP_TOKENS, roles, tokens)
        more_rights = await connection.fetchval(MACHINES_MAY_WRITE) and not await pause.fetchval(MACHINES_MAY_WRITE)
        restored = Restored(backup.name, backup.taken_at, version, kept, **cost, deploy_again=more_rights)
        await connection.execute(CLOSE_THAT_OF_THE_BACKUP)
        written = json.dumps(asdict(restored), default=str)
        await connection.execute(WRITE_DOWN, run["started_by"], run["started_at"], written)
    wrong = await broken(successor)
    if wrong:
        raise UpkeepFailed(f"The backup {backup.name} breaks promises, so it was not put in place: {'; '.join(wrong)}.")
    return restored


async def _replaced(pause: Connection) -> tuple[int, list[str], list[bytes | None]]:
    """The highest epoch of the database that is replaced, its machines' roles, and each one's token for the hub."""
    try:
        row = await pause.fetchrow(REPLACED)
    except asyncpg.UndefinedTableError:
        return 0, [], []
    assert row
    return row["floor"], row["roles"], row["tokens"]

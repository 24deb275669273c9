"""Moves the database to another server, with all that is in it, while nothing is accepted; then closes the old one.

Epochs need not jump, as they do after a restore: what a machine remembers is in the copy, because nothing that it or
anybody else does is accepted between the copy and the moment in which the old database loses its name.
"""

import asyncio
import json
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from allocator import bootstrap, migrate
from allocator.operations import Operation, Tell
from allocator.upkeep import UpkeepFailed
from allocator.upkeep.backup import DUMP, LEFT_OUT, Backup, back_up, count
from allocator.upkeep.history import Head, broken_chain
from allocator.upkeep.load import broken, load, missing
from allocator.upkeep.pause import paused
from allocator.upkeep.reach import connected, database_of
from allocator.upkeep.scratch import BEGINNING, drop, scratch_database
from allocator.upkeep.storage import Directory
from allocator.upkeep.swap import forget_secrets, put_away, swap
from allocator.upkeep.target import Target, machines_roles, refuse_if_unfit, refuse_if_used
from allocator.upkeep.verify import schema_findings
from client.network import Connection

HELD = (
    "pools, join_tokens, admins, vms, leases, lease_secrets, vm_roles, events, "
    "event_seals, event_sealing, event_archives"
)
"""What a copy must not miss, in about the order in which requests come to it: an invitation or a seal counts too."""

FOUND = "SELECT (SELECT count(*) FROM vms) AS vms, (SELECT count(*) FROM leases WHERE live) AS leases"
DONE = "UPDATE operations SET status = 'done', finished_at = clock(), result = $2 WHERE id = $1"


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of it."""

    server_version: int
    """Of PostgreSQL, there."""
    vms: int
    leases: int
    """Live ones, which go on."""
    vms_to_invite: list[str]
    """Machines whose password could not be read here, so that the new server does not know it."""
    refused: list[str]
    """Statements that the new server refused, and that can be done without."""
    kept_as: str
    """The name that the database has on the old server now."""
    back: str
    """What undoes the closing, on the old server as its superuser."""


async def move(dsn: str, target: Target, operation: Operation, superuser: str | None = None) -> Moved:
    """Move the database at `dsn` (the owner's). Raises UpkeepFailed; then it is as it was, and the target is empty.

    `superuser` leads to the same server, and lets us read the machines' password verifiers.
    """
    await _refuse_if_old(dsn)
    version = await refuse_if_unfit(dsn, target)
    refused = await bootstrap.prepare(target.superuser, target.passwords, database_of(target.owner))
    name = database_of(dsn)
    kept = f"{name[:BEGINNING]}_moved_{datetime.now(UTC):%Y%m%d%H%M%S}"
    async with (
        paused(dsn, HELD) as pause,
        paused(target.owner) as held,
        scratch_database(target.owner, "moving") as successor,
        machines_roles(superuser or dsn, pause, target) as to_invite,
    ):
        await refuse_if_used(held)
        await _copy(dsn, pause, successor, operation.progress)
        await bootstrap.prepare(target.superuser, target.passwords, database_of(successor))
        found = await pause.fetchrow(FOUND)
        assert found
        back = f"ALTER DATABASE {kept} RENAME TO {name}"
        moved = Moved(version, **found, vms_to_invite=to_invite, refused=refused, kept_as=kept, back=back)
        await _write_down(successor, operation, moved)
        await operation.leave()
        await _to_its_end(_switch(dsn, kept, pause, target, successor, held))
    return moved


async def _switch(dsn: str, kept: str, pause: Connection, target: Target, successor: str, held: Connection) -> None:
    """The old database loses its name when the new one has got it; a kill in between leaves the old one as it was."""
    empty = f"{database_of(target.owner)[:BEGINNING]}_moving_empty"
    async with put_away(dsn, kept, pause):
        await swap(target.owner, database_of(successor), empty, held)
    async with connected(target.owner) as there:
        await drop(there, empty)
    await forget_secrets(dsn, kept)


async def _to_its_end(work: Coroutine[None, None, None]) -> None:
    """Do what takes a moment and must not end half-way; a Ctrl-C comes too late for it."""
    task = asyncio.create_task(work)
    with suppress(asyncio.CancelledError):
        await asyncio.shield(task)
    await task


async def _refuse_if_old(dsn: str) -> None:
    if not all(step.applied for step in await migrate.history(dsn)):
        raise UpkeepFailed("The database is not at this version of LabLink: lablink db migrate, then move it.")


async def _copy(dsn: str, pause: Connection, successor: str, tell: Tell) -> None:
    """All rows, codes and PINs included; those never lie in a file. Raises UpkeepFailed when one is missing."""
    with TemporaryDirectory(prefix="lablink-move-") as place:
        made = await back_up(dsn, Directory(Path(place)), tell)
        await load(successor, made, Path(place) / f"{made.name}{DUMP}", tell)
    async with connected(successor) as there:
        for table in LEFT_OUT:
            rows = BytesIO()
            await pause.copy_from_query(f"SELECT * FROM {table}", output=rows, format="binary")
            rows.seek(0)
            await there.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")  # nothing new happens: no event follows
            await there.copy_to_table(table, source=rows, format="binary")
            await there.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
    if wrong := await _wrong(pause, successor, made, tell):
        raise UpkeepFailed(f"It did not arrive as it was, so nothing has changed: {'; '.join(wrong)}.")


async def _wrong(pause: Connection, successor: str, made: Backup, tell: Tell) -> list[str]:
    """What is not there as it is here, in words: rows, rules, schema and history."""
    wrong = await missing(successor, made) + await broken(successor)
    async with connected(successor) as there:
        for table in LEFT_OUT:
            if await count(there, table) != await count(pause, table):
                wrong.append(f"{table} has other rows")
        wrong += [each.what for each in await schema_findings(there, successor) if each.wrong]
        if made.head:
            wrong += await broken_chain(there, head=Head.of(made.head), tell=tell)
    return wrong


async def _write_down(successor: str, operation: Operation, moved: Moved) -> None:
    async with connected(successor) as connection:
        await connection.execute(DONE, operation.id, json.dumps(asdict(moved)))

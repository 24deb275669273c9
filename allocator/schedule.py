"""Backups by themselves: one is made when the last is old enough, by whichever allocator is first to see it."""

import asyncio

import structlog

from allocator import config
from allocator.logins import dsn
from allocator.operations import OperationRefused, running, who
from allocator.upkeep.backup import Backup, back_up
from allocator.upkeep.reach import connect, connected
from allocator.upkeep.storage import storage_at

log = structlog.get_logger()

LOOK_SECONDS = 60.0
RETRY_MINUTES = 10

DUE = """
    SELECT NOT EXISTS (SELECT FROM operations WHERE kind = 'backup' AND (
        status = 'done' AND started_at > clock() - make_interval(secs => {seconds})
        OR status = 'failed' AND started_at > clock() - make_interval(mins => {retry})))
"""


class BackupSchedule:
    """Looks once a minute whether a backup is due; the history in `operations` says so, not this process."""

    def __init__(self, database: config.Database, backup: config.Backup) -> None:
        self._database = database
        self._backup = backup
        seconds = 3600 * (backup.every_hours or 0)
        self._look_seconds = min(LOOK_SECONDS, seconds)
        self._due = DUE.format(seconds=seconds, retry=RETRY_MINUTES)

    async def run(self) -> None:
        """Make backups for ever, if the settings ask for them; what goes wrong is logged and tried again."""
        while self._backup.every_hours:
            try:
                await self.run_once()
            except Exception:  # the outermost loop: the next look must come
                log.exception("backup.failed")
            await asyncio.sleep(self._look_seconds)

    async def run_once(self) -> Backup | None:
        """The backup that was due and was made; None when there is none to make, or somebody else is at it."""
        owner = await dsn(self._database, self._database.owner)
        async with connected(owner) as connection:
            if not await connection.fetchval(self._due):
                return None
        try:
            async with running(lambda: connect(owner), "backup", who("schedule"), wanted=self._due) as operation:
                storage = storage_at(str(self._backup.to))
                made = await back_up(owner, storage, operation.progress, self._backup.keep_days)
                operation.result = made.summary()
        except OperationRefused:
            return None
        log.info("backup.made", name=made.name, size=made.size)
        return made

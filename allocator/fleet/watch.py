"""Compares the record with EC2 now and then; machines that failed by themselves are rebooted, in the end replaced."""

import asyncio

import structlog

from allocator import config
from allocator.fleet import acts, record
from allocator.fleet.acts import Doer, perform
from allocator.fleet.description import Fleet
from allocator.fleet.reconcile import settle_gone
from allocator.fleet.record import opened, owners
from allocator.fleet.refusals import CloudRefused, FleetError
from allocator.logins import dsn
from allocator.operations import OperationRefused, sentence, who
from client.network import Connection

log = structlog.get_logger()

ACTOR = "sweep"


class FleetWatch:
    """Runs in every allocator: whatever it does locks the machine's row first, so none is done twice."""

    def __init__(self, database: config.Database, fleet: config.Fleet) -> None:
        self._database = database
        self._settings = fleet

    async def run(self) -> None:
        """Watch for ever, if there is a fleet; what goes wrong is logged, and tried again after the period."""
        while self._settings.settings:
            try:
                await self.run_once()
            except FleetError as error:
                log.warning("fleet.failed", error=type(error).__name__, why=sentence(error))
            except Exception:  # the outermost loop: the next look must come
                log.exception("fleet.failed")
            await asyncio.sleep(self._settings.period_seconds)

    async def run_once(self) -> None:
        """One look. Raises FleetError and what asyncpg does."""
        fleet = Fleet.of(self._settings)
        owner = await dsn(self._database, self._database.owner)
        async with opened(owners(owner, ACTOR)) as connection:
            if gone := await settle_gone(fleet, connection):
                log.info("fleet.gone", machines=gone)
            if not self._settings.repair:
                return
            await record.end_reboots(connection)
            repairs = await record.repairs(connection, self._settings.cool_down_seconds)
            for hostname in repairs["reboot"]:
                await self._reboot(fleet, connection, hostname)
        if repairs["replace"]:
            await self._replace(fleet, owner, repairs["replace"])

    async def _reboot(self, fleet: Fleet, connection: Connection, hostname: str) -> None:
        """Reboot it while its row is locked: nobody is given it between the decision and the reboot.

        One that EC2 does not reboot, such as one that somebody stopped, is left to an admin and keeps no other waiting.
        """
        try:
            async with connection.transaction():
                instance = await record.begin_reboot(connection, hostname, self._settings.cool_down_seconds)
                if instance is None:
                    return
                await fleet.cloud.reboot(instance)
        except CloudRefused as refused:
            log.warning("fleet.not_rebooted", vm=hostname, error=refused.code)
            return
        log.info("fleet.rebooted", vm=hostname, instance=instance)

    async def _replace(self, fleet: Fleet, owner: str, hostnames: list[str]) -> None:
        """Replace those that three reboots did not help; where something long runs, at the next look."""
        try:
            await perform(acts.replace(*hostnames), fleet, Doer(owner, ACTOR, who("fleet watch")))
        except OperationRefused:
            return
        except FleetError as error:
            log.warning("fleet.not_replaced", machines=hostnames, error=type(error).__name__)
            return
        log.info("fleet.replaced", machines=hostnames)

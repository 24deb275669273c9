"""Makes machines in the cloud for pools that grow, and removes those of pools that shrink."""

from collections.abc import Sequence
from typing import Any

import structlog

from allocator import config
from allocator.fleet import acts
from allocator.fleet.acts import Act, Doer, perform
from allocator.fleet.description import Fleet
from allocator.fleet.record import owners
from allocator.logins import dsn
from allocator.operations import who
from allocator.scaling import Scaler
from client.network import Connection

log = structlog.get_logger()

ACTOR = "sweep"
PREFIX = "vm"
LOOK_SECONDS = 5.0


class FleetActuator:
    """Terraform, for any pool; one operation on the fleet at a time."""

    pool = None
    own = None

    def __init__(self, database: config.Database, fleet: config.Fleet) -> None:
        self._database = database
        self._settings = fleet

    async def run(self) -> None:
        """Scale for ever, if there is a fleet."""
        if self._settings.settings:
            await self.scaler().run()

    def scaler(self) -> Scaler:
        """What asks the database for orders and has this carry them out."""
        return Scaler(self._connect, self, _complain, LOOK_SECONDS)

    async def grow(self, pool: str, number: int) -> None:
        """Make so many more. Raises OperationRefused, FleetError and what asyncpg does."""
        log.info("fleet.grows", pool=pool, machines=number)
        await self._perform(acts.grow(number, pool, PREFIX))

    async def let_go(self, pool: str, hostnames: Sequence[str]) -> None:
        """Remove these. Raises as `grow` does."""
        log.info("fleet.shrinks", pool=pool, machines=hostnames)
        await self._perform(acts.let_go(pool, hostnames))

    async def _perform(self, act: Act[Any]) -> None:
        doer = Doer(await dsn(self._database, self._database.owner), ACTOR, who("scaling"))
        await perform(act, Fleet.of(self._settings), doer)

    async def _connect(self) -> Connection:
        return await owners(await dsn(self._database, self._database.owner), ACTOR)()


def _complain(error: Exception) -> None:
    log.warning("fleet.not_scaled", error=type(error).__name__)  # its operation says more, and may name people

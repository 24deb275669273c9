"""What admins have done over the HTTP API: each a task of this service, that ends with its operation."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog

from allocator import config
from allocator.errors import FleetMissing, IllegalChange, OperationUnderWay
from allocator.fleet.acts import Act, Doer, perform
from allocator.fleet.description import Fleet
from allocator.fleet.record import opened, owners
from allocator.fleet.refusals import NoFleet
from allocator.logins import dsn
from allocator.operations import OperationRefused
from allocator.sqlstates import translated

log = structlog.get_logger()

NOT_OURS = "It is over, or no operation on the fleet: others are ended in the terminal where they run, with Ctrl-C."


class Desk:
    """Where acts are handed in. They run in its task group, and are cancelled when it closes."""

    def __init__(self, database: config.Database, fleet: config.Fleet, tasks: asyncio.TaskGroup) -> None:
        self._database = database
        self._settings = fleet
        self._tasks = tasks
        self._at_work: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def opened(cls, database: config.Database, fleet: config.Fleet) -> "AsyncIterator[Desk]":
        """A desk; when the block ends, so does what is at work there, as Ctrl-C would end it."""
        async with asyncio.TaskGroup() as tasks:
            desk = cls(database, fleet, tasks)
            try:
                yield desk
            finally:
                for task in desk._at_work:
                    _cancel(task)

    def fleet(self) -> Fleet:
        """The fleet that is configured. Raises FleetMissing."""
        try:
            return Fleet.of(self._settings)
        except NoFleet as none:
            raise FleetMissing(str(none)) from none

    async def begin(self, act: Act[Any], admin: str, *, drain: bool) -> int:
        """Begin it; returns its operation. Raises FleetMissing, OperationUnderWay, Unavailable, DatabaseFailed."""
        fleet, who = self.fleet(), f"admin:{admin}"
        with translated():
            doer = Doer(await dsn(self._database, self._database.owner), who, who)
            begun: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            task = self._tasks.create_task(self._perform(act, fleet, doer, drain, begun))
            self._at_work.add(task)
            task.add_done_callback(self._at_work.discard)
            try:
                return await begun
            except OperationRefused as refused:
                raise OperationUnderWay(str(refused)) from refused

    async def cancel(self, operation: int, admin: str) -> None:
        """End it as Ctrl-C in a terminal would, wherever it runs. Raises FleetMissing, IllegalChange, Unavailable."""
        self.fleet()  # who has none may not come as the owner
        who = f"admin:{admin}"
        with translated():
            async with opened(owners(await dsn(self._database, self._database.owner), who)) as connection:
                if not await connection.fetchval("SELECT cancel_operation($1, $2)", operation, who):
                    raise IllegalChange(NOT_OURS)

    async def _perform(self, act: Act[Any], fleet: Fleet, doer: Doer, drain: bool, begun: asyncio.Future[int]) -> None:
        """Run it to its end, which its operation keeps; until that has begun, `begun` is told what goes wrong."""

        def note(operation: int) -> None:
            log.info("operation.begun", operation=operation, kind=act.kind, actor=doer.actor)
            if not begun.done():
                begun.set_result(operation)

        try:
            await perform(act, fleet, doer, drain=drain, begun=note)
        except Exception as error:  # noqa: BLE001  # the outermost place of an operation, whose row has the words
            if begun.done():
                log.warning("operation.failed", kind=act.kind, error=type(error).__name__)
            else:
                begun.set_exception(error)
        finally:
            begun.cancel()


def _cancel(task: asyncio.Task[None]) -> None:
    """Once: whoever is cancelled twice leaves Terraform to itself."""
    if not task.cancelling():
        task.cancel()

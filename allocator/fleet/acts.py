"""What may be done with a fleet, one function each; and how: as an operation, after a wait for people where wanted."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Generic, TypeVar

from allocator.fleet import record
from allocator.fleet.description import Fleet
from allocator.fleet.drain import drained
from allocator.fleet.record import opened, owners
from allocator.fleet.refusals import Ended, FleetError, InUse
from allocator.fleet.runs import Changes, Run
from allocator.operations import Operation, Tell, running
from allocator.tasks import alongside
from allocator.upkeep.reach import connect as without_limits
from client.network import Connection

T = TypeVar("T")


async def _nobody(_connection: Connection) -> Sequence[str]:
    return ()


@dataclass(frozen=True, slots=True)
class Act(Generic[T]):
    """Something that is done with a fleet; `kind` is what its operation is called."""

    kind: str
    work: Callable[[Run], Awaitable[T]]
    leavers: Callable[[Connection], Awaitable[Sequence[str]]] = _nobody
    """Whom it waits for at once when it drains. Whoever is found to be in its way it waits for as well."""
    pool: str | None = None
    """The pool whose machines it makes or takes away, where it is one."""


@dataclass(frozen=True, slots=True)
class Doer:
    """Who does it: the owner's connection string, the actor of its events, and who started its operation."""

    dsn: str
    actor: str
    started_by: str


def plan() -> Act[tuple[Changes, list[str]]]:
    """What an apply would do, and who is in its way."""

    async def work(run: Run) -> tuple[Changes, list[str]]:
        found = Changes.of(await run.look())
        async with opened(run.connect) as connection:
            held = await record.held(connection, [*found.replace, *found.remove])
        people = [each.words for each in held]
        run.operation.result = asdict(found) | {"in_the_way": people}
        return found, people

    return Act("fleet plan", work)


def apply() -> Act[Changes]:
    """Make the machines what is wanted."""
    return Act("fleet apply", lambda run: run.apply())


def grow(number: int, pool: str, prefix: str, **like: object) -> Act[Changes]:
    """Make so many more; `like` gives ami_id, instance_type and disk_gb."""

    async def work(run: Run) -> Changes:
        async with opened(run.connect) as connection:
            before = await record.wanted(connection)
            pending = await record.grow(connection, number, pool, prefix, **like)
        try:
            return await run.apply()
        except FleetError:  # what was not made the next apply, of any pool, shall not try again
            async with opened(run.connect) as connection:
                await record.forget(connection, [hostname for hostname in pending if hostname not in before])
            raise

    return Act("fleet grow", work, pool=pool)


def shrink(number: int, pool: str | None) -> Act[Changes]:
    """Remove so many idle ones."""

    async def leavers(connection: Connection) -> Sequence[str]:
        return await record.leavers(connection, number, pool)

    async def work(run: Run) -> Changes:
        async with opened(run.connect) as connection:
            await record.shrink(connection, number, pool)
        return await run.apply()

    return Act("fleet shrink", work, leavers, pool)


def let_go(pool: str, hostnames: Sequence[str]) -> Act[Changes]:
    """Remove these idle ones of a pool; none of them, where somebody was lent one by hand meanwhile."""

    async def work(run: Run) -> Changes:
        async with opened(run.connect) as connection:
            if await record.retire(connection, hostnames):
                return Changes()
            await record.leave(connection, hostnames)
        return await run.apply()

    return Act("fleet shrink", work, pool=pool)


def replace(*hostnames: str) -> Act[Changes]:
    """Make new ones of these names."""
    return Act("fleet replace", lambda run: run.apply(replace=hostnames))


def destroy() -> Act[Changes]:
    """Remove them all."""
    return Act("fleet destroy", lambda run: run.apply(everything_goes=True))


async def perform(
    act: Act[T],
    fleet: Fleet,
    doer: Doer,
    *,
    drain: bool = False,
    tell: Tell | None = None,
    begun: Callable[[int], object] = lambda _id: None,
    in_the_way: Callable[[Sequence[str]], object] = lambda _people: None,
) -> T:
    """What the act's work returns. With `drain` it waits for whoever is in the way, and tells who that is.

    `begun` is told the operation's id. Raises OperationRefused, FleetError and what asyncpg does.
    """
    connect = owners(doer.dsn, doer.actor)
    async with (
        _until_unwanted() as end,
        running(lambda: without_limits(doer.dsn), act.kind, doer.started_by, tell=tell, pool=act.pool) as operation,
        alongside(end.when(operation)),
    ):
        begun(operation.id)
        run = Run(fleet, connect, operation)
        try:
            return await (_when_free(act, run, in_the_way) if drain else act.work(run))
        except FleetError as error:
            operation.problem = str(error)
            raise


@dataclass(slots=True)
class _End:
    """The end of a block of code, which comes when an admin wants it: see allocator/sql/functions/66_admins.sql."""

    limit: asyncio.Timeout
    wanted_by: str = ""

    async def when(self, operation: Operation) -> None:
        """Cancel the block, once, when its operation is to end."""
        self.wanted_by = await operation.unwanted()
        self.limit.reschedule(asyncio.get_running_loop().time())


@asynccontextmanager
async def _until_unwanted() -> AsyncIterator[_End]:
    """A block that is cancelled when its end is wanted, which is raised as Ended."""
    end = _End(asyncio.timeout(None))
    try:
        async with end.limit:
            yield end
    except TimeoutError as error:
        if end.limit.expired():
            raise Ended(end.wanted_by) from error
        raise


async def _when_free(act: Act[T], run: Run, in_the_way: Callable[[Sequence[str]], object]) -> T:
    """Do it when nobody is on the machines that go; other operations may run until then."""
    async with opened(run.connect) as connection:
        going = list(await act.leavers(connection))
    if not going:
        try:
            return await act.work(run)
        except InUse as error:
            in_the_way(error.people)
            going = error.hostnames
    await run.operation.step_aside()
    async with drained(run.connect, going, run.operation.progress):
        await run.operation.go_on()
        return await act.work(run)

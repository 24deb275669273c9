"""How a command about the fleet runs: as an operation, after a wait for people where that is wanted."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from allocator.cli.database import Place, find, os_user, settings_place
from allocator.cli.failures import CommandFailed, Misused, explained
from allocator.cli.long_runs import shown_progress
from allocator.cli.output import complain
from allocator.config import Fleet as FleetSettings
from allocator.config import load_settings
from allocator.fleet.description import Fleet
from allocator.fleet.drain import drained
from allocator.fleet.record import Connect, opened, owners
from allocator.fleet.refusals import FleetError, InUse, NoFleet
from allocator.fleet.runs import Run
from allocator.operations import running, who
from allocator.upkeep.reach import connect as without_limits
from client.network import Connection

T = TypeVar("T")
Work = Callable[[Run], Awaitable[T]]
Leavers = Callable[[Connection], Awaitable[Sequence[str]]]


async def _nobody(_connection: Connection) -> Sequence[str]:
    return ()


def fleet_settings(data_dir: Path | None, settings: list[str] | None) -> FleetSettings:
    """The configuration of machines in the cloud."""
    return load_settings(settings or [], settings_place(data_dir, settings or [])).fleet


def run_fleet(
    kind: str,
    work: Work[T],
    data_dir: Path | None,
    settings: list[str] | None,
    *,
    drain: bool = False,
    leavers: Leavers = _nobody,
) -> T:
    """What `work` returns, as an operation. With `drain` it waits for whoever is in the way, `leavers` at once."""

    async def run() -> T:
        place = await find(data_dir, settings or [])
        with in_words(place):
            fleet = Fleet.of(fleet_settings(data_dir, settings))
            connect = owners(place.dsn, f"cli:{os_user()}")
            async with opened(connect) as connection:
                waited_for = await leavers(connection) if drain else ()
            try:
                return await _run(kind, work, fleet, place, connect, waited_for)
            except InUse as error:
                if not drain or waited_for:
                    raise
                complain("\n".join(["Waiting until nobody is on them:", *error.people]))
                return await _run(kind, work, fleet, place, connect, error.hostnames)

    return asyncio.run(run())


def ask_fleet(question: Callable[[Connection], Awaitable[T]], data_dir: Path | None, settings: list[str] | None) -> T:
    """The answer to a question about the record, which needs neither Terraform nor a fleet that is configured."""

    async def ask() -> T:
        place = await find(data_dir, settings or [])
        with in_words(place):
            async with opened(owners(place.dsn, f"cli:{os_user()}")) as connection:
                return await question(connection)

    return asyncio.run(ask())


@contextmanager
def in_words(place: Place) -> Iterator[None]:
    """What goes wrong inside the block, in words and with the right exit code."""
    try:
        with explained(place.advice):
            yield
    except NoFleet as error:
        raise Misused(str(error)) from error
    except FleetError as error:
        raise CommandFailed(str(error)) from error


async def _run(kind: str, work: Work[T], fleet: Fleet, place: Place, connect: Connect, waited_for: Sequence[str]) -> T:
    with shown_progress() as tell:
        async with (
            drained(connect, waited_for, tell),
            running(lambda: without_limits(place.dsn), kind, who(f"cli ({os_user()})"), tell=tell) as operation,
        ):
            return await work(Run(fleet, connect, operation))

"""How a command about the fleet runs: with its progress for whoever watches, and failures in words."""

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
from allocator.fleet.acts import Act, Doer, perform
from allocator.fleet.description import Fleet
from allocator.fleet.record import opened, owners
from allocator.fleet.refusals import FleetError, NoFleet
from allocator.operations import who
from client.network import Connection

T = TypeVar("T")


def fleet_settings(data_dir: Path | None, settings: list[str] | None) -> FleetSettings:
    """The configuration of machines in the cloud."""
    return load_settings(settings or [], settings_place(data_dir, settings or [])).fleet


def check_configured(data_dir: Path | None, settings: list[str] | None) -> None:
    """Raises Misused where no machines in the cloud are configured, before anybody is asked whether to go on."""
    try:
        Fleet.of(fleet_settings(data_dir, settings))
    except NoFleet as error:
        raise Misused(str(error)) from error


def run_fleet(act: Act[T], data_dir: Path | None, settings: list[str] | None, *, drain: bool = False) -> T:
    """What the act's work returns, as an operation. With `drain` it waits for whoever is in the way."""

    async def run() -> T:
        place = await find(data_dir, settings or [])
        with in_words(place), shown_progress() as tell:
            fleet = Fleet.of(fleet_settings(data_dir, settings))
            doer = Doer(place.dsn, f"cli:{os_user()}", who(f"cli ({os_user()})"))
            return await perform(act, fleet, doer, drain=drain, tell=tell, in_the_way=_say_who)

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


def _say_who(people: Sequence[str]) -> None:
    complain("\n".join(["Waiting until nobody is on them:", *people]))

"""What one run of the bench does, and how large it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

BOUND_SECONDS = 900.0
QUICK_BOUND_SECONDS = 59.0
MACHINES_BOUND_SECONDS = 1800.0
PROGRAM = "date"
"""What every request runs: it prints its request's number and the moment at which it runs, by itself."""


CONNECTIONS = 10
"""As many as LabLink's service opens for people, so every other side has as many."""

Progress = Callable[[float], None]
"""Told of each share of a measurement that is done; all of them make 1."""


@dataclass(frozen=True, slots=True)
class Options:
    """The sizes of a run. What has a size of its own in a scenario is not here."""

    vms: int = 1_000
    """Machines of the largest fleet that is connected."""
    fleets: tuple[int, ...] = (10, 100, 1_000, 10_000)
    """Machines of the fleets over the hub, as far as they are smaller than the largest."""
    working: tuple[int, ...] = (100, 1_000, 10_000)
    """Machines of those that take up what they get."""
    directs: tuple[int, ...] = (10, 100, 500)
    """Machines of the fleets with a connection to PostgreSQL each."""
    shared: tuple[int, ...] = (100, 1_000)
    """Machines of the fleets that all listen to one channel."""
    crowd: int = 4_000
    """How many come in a crowd, of which only some wait at a time."""
    clients: int = 100
    """Machines that run commands."""
    rate: float = 20.0
    """Requests a second for those."""
    seconds: float = 15.0
    """How long each side is under load; a load of another kind lasts as long at most."""
    turns: int = 5
    """How often at most the same is measured anew, so that what disturbs the machine disturbs all alike."""
    sizes: tuple[int, ...] = (100, 1_000, 10_000, 100_000)
    """VMs in the databases in which claims are timed."""
    rounds: int = 300
    """How often a lone claim is timed."""
    leisure_seconds: float = 60.0
    """In how many seconds people come who come at leisure, in the measure of 320 a minute."""
    kept: int = 100_000
    """VMs of the database that is backed up; it has ten times as many events."""
    waiting: int = 5_000
    """How many wait with their pages open."""
    machines: int = 100
    """How many machines Terraform makes, where that is what is timed."""
    bound_seconds: float = BOUND_SECONDS
    postgres: int | None = None
    data: Path | None = None
    """Where PostgreSQL keeps its data: in memory if nothing is said."""

    @property
    def burst(self) -> int:
        """How many people come at the same moment: as many as the machines can serve twice over."""
        return min(50, self.clients // 2)

    @property
    def crowd_seconds(self) -> float:
        """How long a crowd claims."""
        return min(1.0, self.seconds / 4)

    def timing(self, sizes: Sequence[int]) -> "Options":
        """The same with databases of so many VMs."""
        return replace(self, sizes=tuple(sizes), kept=max(sizes))

    def quick(self) -> "Options":
        """The same within a minute, which says less surely."""
        return replace(
            self,
            fleets=(),
            working=(),
            directs=(),
            shared=(500,),
            crowd=800,
            vms=min(self.vms, 500),
            clients=min(self.clients, 10),
            seconds=min(self.seconds, 1.0),
            turns=1,
            sizes=self.sizes if len(self.sizes) < 3 else (100, 10_000),
            rounds=40,
            leisure_seconds=1.0,
            kept=min(self.kept, 2_000),
            waiting=300,
            machines=min(self.machines, 3),
            bound_seconds=QUICK_BOUND_SECONDS,
        )


def command_of(number: int) -> str:
    """The command line of request `number`; its output is read by `started`."""
    return f"{PROGRAM} +{number}:%s%N"


def started(output: str) -> tuple[int, int] | None:
    """The request and the moment (nanoseconds since 1970) that the output of its command tells."""
    number, colon, moment = output.strip().partition(":")
    return (int(number), int(moment)) if colon and number.isdigit() and moment.isdigit() else None

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
    """The sizes of a run. `seconds` is the load on each side; `rounds` how often each claim is timed."""

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
    fleet_rounds: int = 6
    """How often at most requests come to one of these, each time as many as there are machines."""
    fleet_seconds: float = 4.0
    """How long they come at most, each time."""
    crowd: int = 4_000
    """How many come in a crowd, of which only some wait at a time."""
    idle: float = 10.0
    """Seconds in which nothing happens, where that is what is measured."""
    herds: int = 2
    """1: only machines that are asked to hurry come back after a restart."""
    clients: int = 100
    """Machines that run commands."""
    rate: float = 20.0
    seconds: float = 15.0
    slices: int = 3
    sizes: tuple[int, ...] = (100, 1_000, 10_000, 100_000)
    """VMs in the databases in which claims are timed."""
    rounds: int = 300
    people: int = 320
    people_seconds: float = 60.0
    """In how many seconds so many people come."""
    stream_seconds: float = 10.0
    """How long they come at 100 a second."""
    crowds: int = 5
    """How often a crowd comes to claim."""
    crowd_seconds: float = 1.0
    together: int = 2_000
    """How many jobs other people's queues are given at once."""
    kept: int = 100_000
    """VMs of the database that is backed up; it has ten times as many events."""
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

    def timing(self, sizes: Sequence[int]) -> "Options":
        """The same with databases of so many VMs."""
        return replace(self, sizes=tuple(sizes), kept=max(sizes))

    def quick(self) -> "Options":
        """The same within a minute, which says less surely."""
        return replace(
            self,
            fleets=(),
            working=(100,),
            directs=(),
            shared=(100,),
            fleet_rounds=1,
            fleet_seconds=1.0,
            crowd=800,
            idle=1.0,
            herds=1,
            vms=min(self.vms, 1_000),
            clients=min(self.clients, 10),
            seconds=min(self.seconds, 1.0),
            slices=1,
            sizes=self.sizes if len(self.sizes) < 3 else (100, 10_000),
            rounds=40,
            people=16,
            people_seconds=0.5,
            stream_seconds=1.0,
            crowds=1,
            crowd_seconds=0.25,
            together=500,
            kept=min(self.kept, 2_000),
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

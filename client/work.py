"""What a lease's command is to the agent: what it must serve, what runs, and how the journal's word for it is told."""

import asyncio
from dataclasses import dataclass

from client.command import Command, parse
from client.executor import Started
from client.protocol import Assignment, CommandKind, Memory, Orders, Outcome, Report
from client.records import Entry, Key, State
from client.runner import Finished

OUTCOME: dict[State, Outcome] = {"intent": "started", "done": "exited", "failed": "failed", "unknown": "unknown"}


@dataclass(frozen=True, slots=True)
class Work:
    """The command that was started for a key, and the task that waits for its end."""

    key: Key
    running: Started
    ending: asyncio.Task[None]

    @property
    def goes_on(self) -> bool:
        """Whether it has not come to an end of its own: it runs, or `end` was begun and not finished."""
        return not self.ending.done() or self.ending.cancelled()

    async def end(self) -> None:
        """End its process group; what the journal says of it stays as it is. Raises ProcessesRemain."""
        self.ending.cancel()
        await asyncio.wait([self.ending])
        await self.running.end()


def key_of(orders: Orders) -> Key | None:
    """The lease that the machine is to serve, if any. A machine that an admin holds by hand serves none."""
    if orders.status != "in-use" or orders.lease_id is None or orders.kind == "hold":
        return None
    return Key(orders.lease_id, orders.epoch)


def is_of_another(memory: Memory, key: Key | None) -> bool:
    """Whether what this machine started last, maybe by an earlier client, was not for `key`."""
    return memory.lease_id is not None and Key(memory.lease_id, memory.epoch) != key


def has_arrived(outcome: Outcome, orders: Orders) -> bool:
    """Whether the lease shows it: a database that was restored since has forgotten what it was told."""
    return orders.lease_status == "active" or (outcome == "started" and orders.kind == "desktop")


def command_of(assignment: Assignment) -> Command:
    """The command of an assignment, checked on this machine whoever stored it. Raises CommandRefused."""
    if assignment.command is not None:
        return assignment.command
    return parse(assignment.line or "", assignment.accepts)


def report_of(entry: Entry) -> Report:
    """What the journal knows, as it is told."""
    return Report(*entry.key, OUTCOME[entry.state], entry.exit_code, entry.output, entry.failure, entry.kind)


def ending_of(key: Key, kind: CommandKind, finished: Finished, *, started: bool) -> Entry:
    """How a command ended, as the journal keeps it."""
    failure = finished.failure or (None if started else "command-failed")
    return Entry(key, "failed" if failure else "done", finished.exit_code, finished.output, failure, kind)

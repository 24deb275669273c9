"""Who lets machines in: after a restart thousands come at once, and each costs as much as a request of somebody's.

A few are let in each turn of the event loop, so whatever else is to be done waits no longer than those few take. The
others stand in line, where they cost next to nothing.
"""

import asyncio
import math
from itertools import islice
from typing import Protocol

AT_ONCE = 8
"""How many machines are let in each turn of the loop, which then takes 5 ms."""

LONGEST_SECONDS = 4.0
"""How long the last in line may have to wait; machines give up ten seconds after they have begun to connect."""

FIRST_GUESS_SECONDS = 0.001
"""What a machine takes, until some have come."""

MOST_SECONDS = 60


class Machine(Protocol):
    """Somebody who wants to speak over a WebSocket."""

    def come_in(self) -> None:
        """It is its turn."""


class Doorman:
    """The line of an allocator's machines: first come, first served."""

    def __init__(self) -> None:
        self._line: dict[Machine, None] = {}
        self._each = FIRST_GUESS_SECONDS
        self._at_work = False
        self._room_at = 0.0
        """When those who were told to come later will have been served, too."""

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._line)

    def ask(self, machine: Machine) -> int | None:
        """Have it stand in line. If that is too long already: in how many seconds there will be room for it."""
        now, wait = _now(), len(self._line) * self._each
        if wait > LONGEST_SECONDS:
            self._room_at = max(self._room_at, now + wait) + self._each
            return min(MOST_SECONDS, math.ceil(self._room_at - now))
        self._line[machine] = None
        if not self._at_work:
            self._go_on(None)
        return None

    def forget(self, machine: Machine) -> None:
        """It has hung up."""
        self._line.pop(machine, None)

    def _go_on(self, before: float | None) -> None:
        self._at_work = bool(self._line)
        if self._at_work:
            asyncio.get_running_loop().call_soon(self._let_in, before)

    def _let_in(self, before: float | None) -> None:
        """Let in the next ones. Those of the last turn were let in at `before`, if there was one just now."""
        now = _now()
        if before is not None:
            self._each += ((now - before) / AT_ONCE - self._each) / 100
        try:
            for machine in list(islice(self._line, AT_ONCE)):
                del self._line[machine]
                machine.come_in()
        finally:
            self._go_on(now)


def _now() -> float:
    return asyncio.get_running_loop().time()

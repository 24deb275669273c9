"""How the client speaks to its allocator, whatever carries the words: the verbs, the wake-up, and what may go wrong.

TransportError
├── Unreachable   no answer: it may or may not have been done; say it again later
├── Refused       the answer was no: say hello and do what it answers
│   └── StaleEpoch    the machine changed hands or was cut off meanwhile
└── UnknownVm     this machine is not enrolled (any more)
"""

import asyncio
import random
from types import TracebackType
from typing import Protocol, Self

from client.boot import Boot
from client.protocol import Assignment, Memory, Orders, Report


class TransportError(Exception):
    """A verb that was not done, or whose answer did not come."""


class Unreachable(TransportError):
    """The allocator did not answer. Whether it heard is unknown; every verb may be repeated."""


class Refused(TransportError):
    """The allocator refuses this verb now."""


class StaleEpoch(Refused):
    """The epoch is not the machine's any more."""


class UnknownVm(TransportError):
    """This machine is not enrolled, or not any more: stop, wipe, and ask for a new join token."""


class Transport(Protocol):
    """One connection to the allocator. One task calls the verbs and `idle`; any may set `wake`.

    After Unreachable the next verb connects again; `idle` keeps a fleet from doing that all at once.
    """

    wake: asyncio.Event
    """Set when there may be something new. Clear it, then say hello."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def hello(self, memory: Memory) -> Orders:
        """Heartbeat, question for orders and exchange of fences. Subscribes first when the connection is new."""

    async def claim(self, epoch: int) -> Assignment:
        """The command of the lease at `epoch`. May be repeated until its start is reported. Raises CommandRefused."""

    async def report(self, report: Report) -> None:
        """Tell how the command goes."""

    async def cleaned(self, epoch: int) -> None:
        """Tell that the machine is wiped and fenced at `epoch`."""

    async def unhealthy(self, epoch: int, reason: str) -> None:
        """Tell that the machine cannot do its work."""

    async def booted(self, boot: Boot) -> None:
        """Tell how the machine booted. The same boot again changes nothing."""

    async def idle(self, seconds: float) -> None:
        """Wait for `wake`, at most `seconds`; without a connection wait the jittered time before the next try."""


class Backoff:
    """Full jitter: the n-th wait in a row is anything up to 0.5 s · 2ⁿ, never above `ceiling`."""

    def __init__(self, first: float = 0.5, ceiling: float = 30.0) -> None:
        self.first = first
        self.ceiling = ceiling
        self._tries = 0

    def reset(self) -> None:
        """The last try worked: begin again with short waits."""
        self._tries = 0

    def delay(self) -> float:
        """Seconds to wait before the next try."""
        limit = min(self.ceiling, self.first * 2.0 ** min(self._tries, 16))
        self._tries += 1
        return random.uniform(0, limit)  # spreads a fleet, hides nothing


class Pace:
    """Lets hints through: the first few at once, then `rate` a second. What comes between is let through as one."""

    def __init__(self, event: asyncio.Event, rate: float = 5.0, burst: int = 10) -> None:
        self._event = event
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._filled_at = 0.0
        self._pending: asyncio.TimerHandle | None = None

    @property
    def pending(self) -> bool:
        """Whether a later wake-up is already arranged: then one more hint changes nothing."""
        return self._pending is not None or self._event.is_set()

    def hint(self) -> None:
        """Set the event now or, when it was set too often, as soon as the rate allows."""
        if self.pending:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        self._tokens -= 1
        if self._tokens >= 0:
            self._event.set()
        else:
            self._pending = loop.call_later(-self._tokens / self._rate, self._let_through)

    def cancel(self) -> None:
        """Forget an arranged wake-up."""
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None

    def _let_through(self) -> None:
        self._pending = None
        self._event.set()

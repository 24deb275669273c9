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

    async def hello(self, memory: Memory, idle_seconds: int | None = None) -> Orders:
        """Heartbeat, question for orders and exchange of fences. Subscribes first when the connection is new.

        `idle_seconds` is for how long nobody has used the machine; None: that is not known.
        """

    async def claim(self, epoch: int) -> Assignment:
        """The command of the lease at `epoch`. May be repeated until its start is reported. Raises CommandRefused."""

    async def report(self, report: Report) -> None:
        """Tell how the command goes."""

    async def cleaned(self, epoch: int) -> None:
        """Tell that the machine is wiped and fenced at `epoch`."""

    async def unhealthy(self, epoch: int, reason: str) -> str:
        """Tell that the machine cannot do its work. Returns its status then: whoever has it may keep it."""

    async def well(self, epoch: int) -> None:
        """Tell that what was unhealthy has passed. Whether the machine comes back is the database's to say."""

    async def booted(self, boot: Boot) -> None:
        """Tell how the machine booted. The same boot again changes nothing."""

    async def idle(self, seconds: float) -> None:
        """Wait for `wake`, at most `seconds`; without a connection wait the jittered time before the next try."""


REFUSED_PATIENCE_SECONDS = 180.0
"""How long a refusal may be the server's trouble (a restore, a fail-over) before it is taken as the answer."""


class Patience:
    """A machine that is refused is not enrolled: that is believed only when it stays so."""

    def __init__(self, seconds: float = REFUSED_PATIENCE_SECONDS) -> None:
        self._seconds = seconds
        self._refused_since: float | None = None

    def let_in(self) -> None:
        """It is enrolled."""
        self._refused_since = None

    def refused(self, words: str) -> TransportError:
        """What a refusal means now."""
        self._refused_since = self._refused_since or _now()
        patient = _now() - self._refused_since < self._seconds
        return Unreachable(words) if patient else UnknownVm(words)


class Backoff:
    """Full jitter: the n-th wait in a row is anything up to 0.5 s · 2ⁿ, never above `ceiling`.

    A hello that was answered ends no row: what comes after it may fail each time.
    """

    def __init__(self, first: float = 0.5, ceiling: float = 30.0) -> None:
        self.first = first
        self.ceiling = ceiling
        self._tries = 0

    def reset(self) -> None:
        """All that there was to say was answered: begin again with short waits."""
        self._tries = 0

    def heard(self, period_seconds: float) -> None:
        """A hello was answered, and the next is due in that time: so long, from 30 s to 60 s, may waits become."""
        self.ceiling = min(60.0, max(30.0, period_seconds))

    def delay(self) -> float:
        """Seconds to wait before the next try."""
        limit = min(self.ceiling, self.first * 2.0 ** min(self._tries, 16))
        self._tries += 1
        return random.uniform(0, limit)  # spreads a fleet, hides nothing


class Pace:
    """Lets hints through: of each sender the first few at once, then `rate` a second; what comes between, as one.

    So whoever forges hints without end delays nobody else's. Senders are told apart by any number of theirs.
    """

    def __init__(self, event: asyncio.Event, rate: float = 5.0, burst: int = 3) -> None:
        self._event = event
        self._rate = rate
        self._burst = burst
        self._full_at: dict[int, float] = {}
        self._pending: asyncio.TimerHandle | None = None

    def would_wake(self, sender: int) -> bool:
        """Whether a hint of this sender would change anything: not when a wake-up has come, or is arranged, already."""
        return not self._event.is_set() and (self._pending is None or self._delay(sender) <= 0)

    def hint(self, sender: int) -> None:
        """Set the event now or, when this sender set it too often, as soon as the rate allows."""
        if not self.would_wake(sender):
            return
        delay = self._delay(sender)
        self._charge(sender)
        if delay <= 0:
            self._event.set()
        else:
            self._pending = asyncio.get_running_loop().call_later(delay, self._let_through)

    def cancel(self) -> None:
        """Forget an arranged wake-up."""
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None

    def _delay(self, sender: int) -> float:
        """Seconds until this sender may wake again."""
        return self._full_at.get(sender, 0.0) - _now() - (self._burst - 1) / self._rate

    def _charge(self, sender: int) -> None:
        """Note when the sender will have all its wake-ups again; whoever has them is forgotten."""
        now = _now()
        self._full_at = {one: at for one, at in self._full_at.items() if at > now}
        self._full_at[sender] = max(now, self._full_at.get(sender, 0.0)) + 1 / self._rate

    def _let_through(self) -> None:
        self._pending = None
        self._event.set()


def storable(text: str) -> str:
    """Text that PostgreSQL can keep: no NUL, no half of a surrogate pair."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def _now() -> float:
    return asyncio.get_running_loop().time()

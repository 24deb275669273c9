"""What whoever has a machine is told before it ends by itself: its time is nearly up, or nobody uses it."""

from dataclasses import dataclass

from allocator.time_words import HOUR, MINUTE, duration
from allocator.views import LeaseView

SAID_AT = (2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR)
"""How long before the end it is said aloud, and each full hour before: who listens is not told every minute."""


@dataclass(frozen=True, slots=True)
class EndingWords:
    """An end that its holder is warned of, so that they notice it who look at another tab, or do not look."""

    title: str
    """What the tab's title begins with."""
    aloud: str
    """What a screen reader says: the same for minutes on end, and true all the while."""
    before: tuple[str, ...]
    """What the page says before all else, and after."""
    after: tuple[str, ...]


def ending_words(lease: LeaseView) -> EndingWords | None:
    """The warning before an active lease ends by itself; None while it is too early."""
    ends = [each for each in (lease.idle_until, lease.expires_at if lease.ends_soon else None) if each]
    if not ends:
        return None
    left = (min(ends) - lease.now).total_seconds()
    return EndingWords(
        f"Ends in {duration(left)}",
        f"Ends {_within(left)}{_unless(lease, idle=min(ends) == lease.idle_until)}",
        _idle_words(lease),
        _end_words(lease),
    )


def _within(seconds: float) -> str:
    if seconds < MINUTE:
        return f"in {duration(seconds)}"
    return f"within {duration(next((each for each in SAID_AT if seconds <= each), -(-seconds // HOUR) * HOUR))}"


def _unless(lease: LeaseView, *, idle: bool) -> str:
    if idle:
        return ", unless you say that you are still here"
    return ", unless you keep it longer" if lease.extensible_until else ": save what you need"


def _idle_words(lease: LeaseView) -> tuple[str, ...]:
    """The warning that nobody uses the machine."""
    if lease.idle_until is None or lease.unused_since is None:
        return ()
    unused = duration((lease.now - lease.unused_since).total_seconds())
    left = duration((lease.idle_until - lease.now).total_seconds())
    return (f"Nobody has used it for {unused}; it ends in {left}, and all that is yours on it is wiped.",)


def _end_words(lease: LeaseView) -> tuple[str, ...]:
    """The warning before the end, and what can be done about it."""
    if not lease.ends_soon or lease.expires_at is None:
        return ()
    left = (
        f"It ends in {duration((lease.expires_at - lease.now).total_seconds())}, and all that is yours on it is wiped."
    )
    return (left,) if lease.extensible_until else (left, "It cannot be made longer now: save what you need.")

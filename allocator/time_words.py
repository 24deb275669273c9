"""Times and waits as people say them."""

from datetime import UTC, datetime

MINUTE, HOUR, DAY = 60, 3600, 86_400


def wait_words(likely: int | None, sure: int | None) -> str:
    """How long it will take: what has even odds, and what holds in nine of ten cases."""
    if likely is None:
        return "We cannot say yet how long it will take: too few machines are known to come free."
    about = (
        f"A machine is yours in about {roughly(likely)}" if likely >= MINUTE else "A machine may be yours in a minute"
    )
    if sure is None:
        return f"{about}, maybe much later."
    if sure < MINUTE:
        return "A machine should be yours within a minute."
    if roughly(likely) == roughly(sure):
        return f"A machine is yours within {roughly(sure)}, sooner if somebody is done early."
    return f"{about}; in nine of ten cases within {roughly(sure)}."


def roughly(seconds: float) -> str:
    """As `duration`, of what nobody knows to the minute: after two hours in quarters of an hour."""
    step = 15 * MINUTE if seconds > 2 * HOUR else MINUTE
    return duration(-(-seconds // step) * step) if seconds >= MINUTE else duration(seconds)


def duration(seconds: float) -> str:
    """A length of time as people say it, rounded up: "less than a minute", "5 minutes", "2 h 10 min", "3 days"."""
    if seconds < MINUTE:
        return "less than a minute"
    minutes = -int(-seconds // MINUTE)
    if minutes < 2 * 60:
        return f"{minutes} minute{'s' if minutes > 1 else ''}"
    hours, rest = divmod(minutes, 60)
    if seconds < 2 * DAY:
        return f"{hours} h {rest} min" if rest else f"{hours} hours"
    return f"{hours // 24} days"


def iso(then: datetime) -> str:
    """A time as `<time datetime>` wants it, in UTC."""
    return then.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

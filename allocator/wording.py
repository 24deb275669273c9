"""What the pages say: each state of a lease in words for the person who waits for it. Nothing here asks or changes."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from allocator.views import Counts, EndedBy, LeaseView

Tone = Literal["waiting", "working", "ready", "over", "failed"]
StepState = Literal["done", "now", "failed", "todo"]

MINUTE, HOUR, DAY = 60, 3600, 86_400

FAILURES: dict[str, str] = {
    "code-used": "Google refused the code: it was used before or is too old. Ask again with a fresh command.",
    "code-expired": "The code grew too old while you waited. Ask again with a fresh command.",
    "command-failed": "The command failed on the machine. Read its output, then ask again.",
    "timed-out": "The command took too long and was stopped. Ask again; if it happens twice, tell your admin.",
    "refused": "The machine refused the command. Check the line you pasted, then ask again.",
    "not-installed": "The program is not installed on the machine. Tell your admin.",
    "unknown": "The machine stopped while your command ran, so its outcome is unknown. Ask again, for a desktop with a "
    "fresh line.",
    "lost": "The machine stopped answering. Ask again for another one.",
    "vm-failed": "The machine was taken out of service. Ask again for another one.",
    "vm-deleted": "The machine was removed. Ask again for another one.",
    "deadline": "The machine did not start your command in time. Ask again.",
    "queue-timeout": "No machine came free in time. Ask again later.",
    "database-restored": "The database was restored to an earlier time, so this lease was ended. Ask again.",
}
"""Why a lease failed (each `client.protocol.Failure`), in words for the person who held it."""

FAILURES_BY: dict[tuple[str | None, EndedBy | None], str] = {
    ("vm-failed", "admin"): "An admin took the machine out of service. Ask again for another one.",
    ("vm-failed", "machine"): "The machine found that it is not well and left service. Ask again for another one.",
    ("vm-deleted", "admin"): "An admin removed the machine. Ask again for another one.",
}
"""The same where it matters who made it fail."""

ENDS: dict[EndedBy | None, str] = {
    "holder": "You gave the machine back.",
    "admin": "An admin ended it.",
    "machine": "The machine ended it.",
    "service": "Its time was up.",
    None: "It was ended.",
}
"""Who ended a lease that was active, in words for its holder; None: the history does not say."""

CANCELLATIONS: dict[EndedBy | None, str] = {
    "holder": "You gave it up before it was ready.",
    "admin": "An admin cancelled it before it was ready.",
    "machine": "The machine gave it up before it was ready.",
    "service": "It was given up before it was ready.",
    None: "It was cancelled before it was ready.",
}

NOTHING_NEW = (
    "This lease was yours already, and one person has one at a time: what you sent just now was not started. "
    "To start it, end this one first and ask again."
)
"""What somebody is told whose request finds their live lease."""

STEPS = ("Request", "Machine", "Command", "Yours")


@dataclass(frozen=True, slots=True)
class LeaseWords:
    """How a lease is told: a word for the lamp, a headline, sentences, and what the person can do."""

    tone: Tone
    lamp: str
    headline: str
    sentences: tuple[str, ...]
    reached: int
    """How many of STEPS are behind it."""
    went_wrong: int | None = None
    """Which of STEPS did."""
    end_label: str | None = None
    again: bool = False
    access: bool = False
    """Whether to tell how to get at the desktop."""

    @property
    def announcement(self) -> str:
        """What a screen reader says when the page changes."""
        return ". ".join([self.headline, *self.sentences[:1]])

    @property
    def steps(self) -> list[tuple[str, StepState]]:
        """Each step and how far it is."""
        return [(name, self._state(at)) for at, name in enumerate(STEPS)]

    def _state(self, at: int) -> StepState:
        if at == self.went_wrong:
            return "failed"
        if at < self.reached:
            return "done"
        return "now" if at == self.reached and not self.again else "todo"


def words(lease: LeaseView) -> LeaseWords:
    """The words for a lease as it is now."""
    return {
        "queued": _queued,
        "assigned": _assigned,
        "claimed": _claimed,
        "active": _active,
        "ended": _ended,
        "failed": _failed,
        "cancelled": _cancelled,
    }[lease.status](lease)


def _queued(lease: LeaseView) -> LeaseWords:
    place = lease.position or 1
    sentences = [_wait(lease.eta_seconds)]
    if lease.kind == "desktop":
        sentences.append(
            "Google’s code is good for a few minutes only. Should it grow too old while you wait, this page will say "
            "so, and you ask again with a fresh line."
        )
    return LeaseWords(
        tone="waiting",
        lamp="In line",
        headline="You are next in line" if place == 1 else f"You are {ordinal(place)} in line",
        sentences=tuple(sentences),
        reached=1,
        end_label="Leave the queue",
    )


def _assigned(lease: LeaseView) -> LeaseWords:
    return LeaseWords(
        tone="working",
        lamp="Found",
        headline=f"{lease.hostname} is yours",
        sentences=("We are telling it about your command.",),
        reached=2,
        end_label="Cancel",
    )


def _claimed(lease: LeaseView) -> LeaseWords:
    desktop = "It is registering with Chrome Remote Desktop. That can take a minute."
    return LeaseWords(
        tone="working",
        lamp="Starting",
        headline=f"{lease.hostname} is starting your command",
        sentences=(desktop if lease.kind == "desktop" else "It runs in a moment.",),
        reached=2,
        end_label="Cancel",
    )


def _active(lease: LeaseView) -> LeaseWords:
    headline, sentence = _active_words(lease)
    went_wrong = lease.kind == "job" and bool(lease.exit_code)
    return LeaseWords(
        tone="failed" if went_wrong else "ready",
        lamp="Yours",
        headline=headline,
        sentences=(sentence,),
        reached=4,
        went_wrong=2 if went_wrong else None,
        end_label="Give the machine back",
        access=lease.kind == "desktop",
    )


def _active_words(lease: LeaseView) -> tuple[str, str]:
    if lease.kind == "desktop":
        return "Your machine is ready", "It is registered with Chrome Remote Desktop."
    if lease.kind == "hold":
        return f"{lease.hostname} is held for you", "No command was run on it."
    if lease.exit_code is None:
        return "Your command is running", f"It runs on {lease.hostname}. What it prints shows here once it has ended."
    if lease.exit_code == 0:
        return "Your command is done", f"It ended well on {lease.hostname}, which is yours until you give it back."
    said = "; see below what it said" if lease.output else " and said nothing"
    return (
        "Your command failed",
        f"It ended with exit code {lease.exit_code}{said}. {lease.hostname} is still yours; to run something "
        "else, give it back and ask again.",
    )


def _ended(lease: LeaseView) -> LeaseWords:
    return LeaseWords(
        tone="over",
        lamp="Over",
        headline="This lease is over",
        sentences=(ENDS[lease.ended_by], "Everything of yours is wiped from the machine before anyone else gets it."),
        reached=4,
        again=True,
    )


def _cancelled(lease: LeaseView) -> LeaseWords:
    return LeaseWords(
        tone="over",
        lamp="Cancelled",
        headline="This request was cancelled",
        sentences=(CANCELLATIONS[lease.ended_by],),
        reached=1 if lease.vm_id is None else 2,
        again=True,
    )


def _failed(lease: LeaseView) -> LeaseWords:
    reached = 1 if lease.vm_id is None else 3 if lease.active_at else 2
    return LeaseWords(
        tone="failed",
        lamp="Failed",
        headline="This lease ended early" if lease.active_at else "That did not work",
        sentences=(failure_words(lease) or "Ask again; if it happens twice, tell your admin.",),
        reached=reached,
        went_wrong=reached,
        again=True,
    )


def failure_words(lease: LeaseView) -> str | None:
    """Why a lease failed and what to do next, if it failed."""
    if lease.failure is None:
        return None
    unheard_of = "The machine could not run it. Ask again; if it happens twice, tell your admin."
    return FAILURES_BY.get((lease.failure, lease.ended_by)) or FAILURES.get(lease.failure, unheard_of)


def _wait(eta_seconds: int | None) -> str:
    if eta_seconds is None:
        return "Nobody’s time is known to end, so we cannot say how long it will take."
    if eta_seconds < MINUTE:
        return "A machine should come free within a minute."
    return f"A machine comes free in {duration(eta_seconds)} at the latest, sooner if somebody is done early."


def pool_words(counts: Counts | None) -> str:
    """How many machines there are to be had, in a sentence; None: the database is away."""
    if counts is None:
        return "We cannot see the machines at this moment"
    total = counts.free + counts.lent + counts.coming
    if counts.free:
        return f"{counts.free} of {total} machines {'is' if counts.free == 1 else 'are'} free"
    if not total:
        return "There are no machines yet"
    waiting = {0: "", 1: ", one person waits"}.get(counts.waiting, f", {counts.waiting} people wait")
    return f"No machine is free{waiting}"


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th … 11th, 12th, 13th … 21st."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


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

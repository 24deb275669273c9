"""What the pages say: each state of a lease in words for the person who waits for it. Nothing here asks or changes."""

from dataclasses import dataclass, replace
from typing import Literal

from allocator.ending_words import EndingWords, ending_words
from allocator.failure_words import LOSSES, failure_words, silence_words, trouble_words
from allocator.time_words import wait_words
from allocator.views import EndedBy, LeaseView

Tone = Literal["waiting", "asking", "working", "ready", "over", "failed"]
StepState = Literal["done", "now", "failed", "todo"]

POOL_PAUSED = (
    "The machines of this pool are not lent at the moment: an admin has paused it. You keep your place, your time to "
    "wait does not run out meanwhile, and this page goes on by itself."
)
FORECAST_SECONDS = 12
"""Within which somebody who waits has been told a time, if one can be told."""

NO_LINE_YET = "It is reserved for your desktop."

NEEDS_LINE = "Paste a fresh line from Google’s page below, and it goes on. Each code works once, for a few minutes."

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
    ending: EndingWords | None = None
    """The end that its holder is warned of: title and announcement begin with it."""

    @property
    def title(self) -> str:
        """What the page's tab is called."""
        return f"{self.ending.title} · {self.headline}" if self.ending else self.headline

    @property
    def announcement(self) -> str:
        """What a screen reader says when the page changes: nothing that changes each minute, where an end is near."""
        if self.ending is None:
            return ". ".join([self.headline, *self.sentences[:1]])
        lasting = [each for each in self.sentences if each not in self.ending.before]
        return ". ".join([self.ending.aloud, self.headline, *lasting[:1]])

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
    """The words for a lease as it is now. A silent machine is told of first, but for what its holder is asked for."""
    told = {
        "queued": _queued,
        "assigned": _assigned,
        "claimed": _claimed,
        "active": _active,
        "ended": _ended,
        "failed": _failed,
        "cancelled": _cancelled,
    }[lease.status](lease)
    silence = silence_words(lease)
    if silence is None:
        return told
    if told.tone == "asking":
        return replace(told, sentences=(*told.sentences, silence))
    return replace(told, tone="waiting", lamp="Silent", sentences=(silence, *told.sentences))


def _queued(lease: LeaseView) -> LeaseWords:
    if lease.passed_over:
        return _passed_over(lease)
    place = lease.position or 1
    sentences = [_how_long(lease)]
    if lease.because and not lease.paused:
        sentences.append(f"{lease.because[0].upper()}{lease.because[1:]}.")
    if trouble := trouble_words(lease):
        sentences.insert(0, trouble)
    if lease.needs_line:
        sentences.append("You keep your place. When a machine is yours, this page asks you for a fresh line.")
    elif lease.kind == "desktop":
        sentences.append(
            "Google’s code is good for a few minutes only. Should it grow too old while you wait, you keep your place, "
            "and this page asks you for a fresh line when a machine is yours."
        )
    return LeaseWords(
        tone="waiting",
        lamp="In line",
        headline="You are next in line" if place == 1 else f"You are {ordinal(place)} in line",
        sentences=tuple(sentences),
        reached=1,
        end_label="Leave the queue",
    )


def _passed_over(lease: LeaseView) -> LeaseWords:
    """Its holder did not come."""
    return LeaseWords(
        tone="asking",
        lamp="Passed over",
        headline="Your place is kept",
        sentences=(
            trouble_words(lease) or "",
            "Paste a fresh line from Google’s page below, and you have the place that you had.",
        ),
        reached=1,
        end_label="Leave the queue",
    )


def _how_long(lease: LeaseView) -> str:
    """What keeps it waiting, or for how long. Who came this moment is told later: forecasts take some seconds."""
    if lease.paused:
        return POOL_PAUSED
    if lease.held_back:
        return f"Your group {lease.held_back}; yours comes when one of them is given back."
    if lease.eta_seconds is None and (lease.now - lease.created_at).total_seconds() < FORECAST_SECONDS:
        return "One moment: we are working out how long it will take."
    return wait_words(lease.eta_seconds, lease.eta_p90_seconds)


def _assigned(lease: LeaseView) -> LeaseWords:
    if lease.needs_line:
        return _kept(lease)
    told = "We are telling it about your command."
    return LeaseWords(
        tone="working",
        lamp="Found",
        headline=f"{lease.hostname} is yours",
        sentences=(f"{trouble} {told}" if (trouble := trouble_words(lease)) else told,),
        reached=2,
        end_label="Cancel",
    )


def _kept(lease: LeaseView) -> LeaseWords:
    """It waits for its holder."""
    return LeaseWords(
        tone="asking",
        lamp="Your turn",
        headline=f"{lease.hostname} is kept for you",
        sentences=(_kept_words(lease), NEEDS_LINE),
        reached=2,
        end_label="Give it up",
    )


def _kept_words(lease: LeaseView) -> str:
    """Why its holder is asked for a line."""
    trouble = trouble_words(lease)
    if trouble is None:
        return NO_LINE_YET
    return f"{trouble} This one takes its place." if lease.trouble in LOSSES else trouble


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
    ending = ending_words(lease)
    before, after = (ending.before, ending.after) if ending else ((), ())
    went_wrong = lease.kind == "job" and bool(lease.exit_code)
    return LeaseWords(
        tone="asking" if lease.idle_until else "failed" if went_wrong else "asking" if lease.ends_soon else "ready",
        lamp="Still there?" if lease.idle_until else "Ends soon" if lease.ends_soon else "Yours",
        headline=headline,
        sentences=(*before, sentence, *after),
        reached=4,
        went_wrong=2 if went_wrong else None,
        end_label="Give the machine back",
        access=lease.kind == "desktop",
        ending=ending,
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
        sentences=(
            trouble_words(lease) or ENDS[lease.ended_by],
            "Everything of yours is wiped from the machine before anyone else gets it.",
        ),
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


def nothing_new(per_person: int) -> str:
    """What somebody is told whose request finds their live lease, the newest of so many that they may have there."""
    most = "one person has one" if per_person == 1 else f"one person has at most {per_person} in this pool"
    this = "this one" if per_person == 1 else "one of them"
    return (
        f"This lease was yours already, and {most} at a time: what you sent just now was not started. "
        f"To start it, end {this} first and ask again."
    )


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th … 11th, 12th, 13th … 21st."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"

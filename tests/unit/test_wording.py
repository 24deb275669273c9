"""The words for each state of a lease, and for lengths of time."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import get_args
from uuid import UUID

import pytest

from allocator.tokens import pin_of
from allocator.views import Counts, HeldLease, LeaseStatus, LeaseView
from allocator.wording import FAILURES, STEPS, duration, failure_words, iso, ordinal, own_pin, pool_words, words
from client.protocol import Failure

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
QUEUED = LeaseView(
    id=UUID(int=1),
    email="ada@example.org",
    status="queued",
    pool="default",
    position=1,
    eta_seconds=None,
    vm_id=None,
    hostname=None,
    epoch=None,
    kind="job",
    crd_command="echo hi",
    exit_code=None,
    output=None,
    failure=None,
    created_at=NOW,
    assigned_at=None,
    active_at=None,
    ended_at=None,
    expires_at=None,
    version=0,
    now=NOW,
)
ACTIVE = replace(QUEUED, status="active", position=None, vm_id=1, hostname="vm-1", epoch=1, active_at=NOW)


@pytest.mark.parametrize("status", get_args(LeaseStatus))
def test_every_state_has_words_and_a_way_on(status: LeaseStatus) -> None:
    told = words(replace(ACTIVE, status=status, position=1))

    assert told.headline and told.lamp and told.sentences
    assert told.again != bool(told.end_label)
    assert [name for name, _ in told.steps] == list(STEPS)


@pytest.mark.parametrize(
    ("reached", "lease"),
    [
        ("queued", QUEUED),
        ("assigned", replace(ACTIVE, status="assigned")),
        ("claimed", replace(ACTIVE, status="claimed")),
        ("active", ACTIVE),
        ("failed in the queue", replace(QUEUED, status="failed", failure="queue-timeout")),
        ("failed on the machine", replace(ACTIVE, status="failed", failure="code-used", active_at=None)),
        ("failed later", replace(ACTIVE, status="failed", failure="lost")),
    ],
)
def test_the_track_shows_how_far_it_came(reached: str, lease: LeaseView) -> None:
    states = {
        "queued": ["done", "now", "todo", "todo"],
        "assigned": ["done", "done", "now", "todo"],
        "claimed": ["done", "done", "now", "todo"],
        "active": ["done"] * 4,
        "failed in the queue": ["done", "failed", "todo", "todo"],
        "failed on the machine": ["done", "done", "failed", "todo"],
        "failed later": ["done", "done", "done", "failed"],
    }

    assert [state for _, state in words(lease).steps] == states[reached]


def test_whoever_waits_is_told_honestly_how_long() -> None:
    sentences = [words(replace(QUEUED, eta_seconds=eta)).sentences[0] for eta in (None, 30, 5400)]

    assert "cannot say" in sentences[0]
    assert "within a minute" in sentences[1]
    assert "90 minutes at the latest" in sentences[2]


def test_only_a_desktop_that_waits_is_warned_of_its_code() -> None:
    assert "code" not in " ".join(words(QUEUED).sentences)
    assert "code" in " ".join(words(replace(QUEUED, kind="desktop")).sentences)


def test_the_end_says_whether_the_time_was_up() -> None:
    given_back = replace(ACTIVE, status="ended", ended_at=NOW, expires_at=NOW + timedelta(hours=1))
    timed_out = replace(given_back, ended_at=NOW + timedelta(hours=2))

    assert words(given_back).sentences[0] == "The machine was given back."
    assert words(timed_out).sentences[0] == "Its time was up."


@pytest.mark.parametrize("failure", [*FAILURES, "something-new"])
def test_every_failure_says_what_to_do(failure: str) -> None:
    told = words(replace(ACTIVE, status="failed", failure=failure))

    assert told.sentences[0] == failure_words(failure)
    assert told.sentences[0].endswith(".") and len(told.sentences[0]) > 20


def test_our_pin_is_told_once_the_desktop_is_active_and_only_if_it_is_ours() -> None:
    desktop = replace(ACTIVE, kind="desktop", crd_command="start-host --code=*** --redirect-url=…")

    assert own_pin(HeldLease(desktop, "token")) == pin_of("token")
    assert own_pin(HeldLease(replace(desktop, status="claimed"), "token")) is None
    assert own_pin(HeldLease(replace(desktop, status="ended"), "token")) is None
    assert own_pin(HeldLease(replace(desktop, crd_command="start-host --code=*** --pin=***"), "token")) is None
    assert own_pin(HeldLease(ACTIVE, "token")) is None


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        (None, "We cannot see the machines at this moment"),
        (Counts(0, 0, 0, 0), "There are no machines yet"),
        (Counts(1, 2, 0, 0), "1 of 3 machines is free"),
        (Counts(2, 1, 1, 0), "2 of 4 machines are free"),
        (Counts(0, 3, 0, 0), "No machine is free"),
        (Counts(0, 3, 0, 1), "No machine is free, one person waits"),
        (Counts(0, 3, 1, 7), "No machine is free, 7 people wait"),
    ],
)
def test_the_pool_in_a_sentence(counts: Counts | None, sentence: str) -> None:
    assert pool_words(counts) == sentence


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "less than a minute"),
        (59, "less than a minute"),
        (60, "1 minute"),
        (61, "2 minutes"),
        (3600, "60 minutes"),
        (7200, "2 hours"),
        (7260, "2 h 1 min"),
        (28800, "8 hours"),
        (2 * 86400, "2 days"),
    ],
)
def test_lengths_of_time_are_rounded_up(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_places_in_line() -> None:
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 22, 101, 111)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "101st", "111th",
    ]  # fmt: skip


def test_times_are_told_in_utc() -> None:
    assert iso(datetime.fromisoformat("2026-11-20T17:45:00+05:45")) == "2026-11-20T12:00:00Z"


def test_every_failure_has_its_sentence() -> None:
    assert FAILURES.keys() == set(get_args(Failure))

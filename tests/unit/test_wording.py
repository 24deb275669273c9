"""The words for each state of a lease, and for lengths of time."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import get_args
from uuid import UUID

import pytest

from allocator.failure_words import FAILURES, failure_words
from allocator.leasing import own_pin
from allocator.pool_views import Counts
from allocator.pool_wording import pool_words
from allocator.time_words import duration, iso, roughly, wait_words
from allocator.tokens import pin_of
from allocator.views import EndedBy, HeldLease, LeaseStatus, LeaseView
from allocator.wording import STEPS, ordinal, words
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
    ended_by=None,
    needs_line=False,
    trouble=None,
    moves=0,
    kept_until=None,
    extensible_until=None,
    warned_from=None,
    eta_p90_seconds=None,
    paused=False,
    held_back=None,
    because=None,
    idle_until=None,
    unused_since=None,
    silent_since=None,
    passed_over=False,
    left_idle=False,
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


def test_whoever_waits_in_a_pool_that_is_paused_is_told_so_and_no_time() -> None:
    told = words(replace(QUEUED, paused=True, eta_seconds=600)).sentences[0]
    assert "paused" in told and "minute" not in told


def test_whoever_waits_is_told_honestly_how_long() -> None:
    etas = [(None, None), (20, 50), (600, 5400), (600, None), (600, 600)]
    later = replace(QUEUED, now=NOW + timedelta(seconds=20))
    sentences = [words(replace(later, eta_seconds=p50, eta_p90_seconds=p90)).sentences[0] for p50, p90 in etas]

    assert words(QUEUED).sentences[0].startswith("One moment")
    assert "cannot say" in sentences[0]
    assert "within a minute" in sentences[1]
    assert "about 10 minutes; in nine of ten cases within 90 minutes" in sentences[2]
    assert "maybe much later" in sentences[3]
    assert "within 10 minutes, sooner" in sentences[4]


def test_only_a_desktop_that_waits_is_warned_of_its_code() -> None:
    assert "code" not in " ".join(words(QUEUED).sentences)
    assert "code" in " ".join(words(replace(QUEUED, kind="desktop")).sentences)


@pytest.mark.parametrize("status", ["ended", "cancelled"])
@pytest.mark.parametrize("ended_by", [*get_args(EndedBy), None])
def test_an_end_says_who_made_it(status: LeaseStatus, ended_by: EndedBy | None) -> None:
    told = words(replace(ACTIVE, status=status, ended_at=NOW, ended_by=ended_by)).sentences[0]

    assert told.startswith(
        {"holder": "You ", "admin": "An admin ", "machine": "The machine ", "service": "It"}.get(
            ended_by or "", "It was "
        )
    )


def test_a_job_that_failed_does_not_look_as_if_it_had_gone_well() -> None:
    told = words(replace(ACTIVE, exit_code=1))

    assert (told.tone, told.lamp) == ("failed", "Yours")
    assert [state for _, state in told.steps] == ["done", "done", "failed", "done"]
    assert told.end_label and "exit code 1" in told.sentences[0]


def test_nobody_who_asked_for_a_job_is_told_of_a_code() -> None:
    jobs_too = FAILURES.keys() - {"code-used", "code-expired"}

    assert not any(re.search(r"\bcode\b", FAILURES[failure]) for failure in jobs_too)


@pytest.mark.parametrize("failure", [*FAILURES, "something-new"])
def test_every_failure_says_what_to_do(failure: str) -> None:
    failed = replace(ACTIVE, status="failed", failure=failure)

    told = words(failed)

    assert told.sentences[0] == failure_words(failed)
    assert told.sentences[0].endswith(".") and len(told.sentences[0]) > 20


def test_a_machine_that_was_taken_away_says_by_whom() -> None:
    lost = replace(ACTIVE, status="failed", failure="vm-failed", ended_by="admin")

    assert words(lost).headline == "This lease ended early"
    assert words(lost).sentences[0].startswith("An admin took the machine out of service.")
    assert words(replace(lost, active_at=None)).headline == "That did not work"


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
        (Counts(0, 0, 0, 0, paused=True), "No machine is lent at the moment: an admin has paused the pool"),
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


def test_whoever_waits_is_told_what_comes_and_whoever_is_paused_that_nothing_does() -> None:
    waiting = replace(QUEUED, eta_seconds=120, eta_p90_seconds=200, because="1 machine is booting")

    assert words(waiting).sentences[:2] == (
        "A machine is yours in about 2 minutes; in nine of ten cases within 4 minutes.",
        "1 machine is booting.",
    )
    assert "paused" in words(replace(waiting, paused=True)).sentences[0]
    assert len(words(replace(waiting, paused=True)).sentences) == 1


@pytest.mark.parametrize(
    ("likely", "sure", "told"),
    [
        (20, 150, "A machine may be yours in a minute; in nine of ten cases within 3 minutes."),
        (20, None, "A machine may be yours in a minute, maybe much later."),
        (20, 40, "A machine should be yours within a minute."),
        (70, None, "A machine is yours in about 2 minutes, maybe much later."),
    ],
)
def test_a_wait_that_is_short_is_told_as_people_say_it(likely: int, sure: int | None, told: str) -> None:
    assert wait_words(likely, sure) == told


def test_whoever_was_moved_is_told_that_this_machine_takes_the_place_of_the_other() -> None:
    kept = replace(QUEUED, status="assigned", kind="desktop", hostname="vm-2", needs_line=True, trouble="lost", moves=1)

    assert words(kept).sentences[0] == "The machine that you had stopped answering. This one takes its place."
    assert words(replace(kept, trouble="code-used")).sentences[0].endswith("is too old.")


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (20, "less than a minute"),
        (119 * 60, "119 minutes"),
        (26_880, "7 h 30 min"),
        (28_800, "8 hours"),
        (28_860, "8 h 15 min"),
    ],
)
def test_a_long_wait_is_told_in_quarters_of_an_hour(seconds: float, told: str) -> None:
    assert roughly(seconds) == told


def test_whoever_leaves_a_machine_unused_is_warned_and_told_afterwards_why_it_is_over() -> None:
    since, until = NOW - timedelta(minutes=50), NOW + timedelta(minutes=10)
    warned = words(replace(ACTIVE, kind="desktop", unused_since=since, idle_until=until))
    assert (warned.lamp, warned.tone) == ("Still there?", "asking")
    assert warned.sentences[0].startswith("Nobody has used it for 50 minutes; it ends in 10 minutes")

    over = words(replace(ACTIVE, status="ended", left_idle=True, ended_by="service"))
    assert over.sentences[0].startswith("Nobody had used it for long")


def test_who_is_passed_over_reads_how_to_go_on() -> None:
    away = replace(QUEUED, kind="desktop", needs_line=True, passed_over=True, trouble="no-line", position=None)
    told = words(away)
    assert away.is_asked and told.headline == "Your place is kept"
    assert "went to whoever was next" in " ".join(told.sentences) and "fresh line" in " ".join(told.sentences)
    assert not replace(away, passed_over=False, position=3).is_asked


def test_whose_machine_is_silent_reads_so_first_and_what_is_asked_of_them_before_that() -> None:
    heard = NOW - timedelta(seconds=40)
    silent = replace(ACTIVE, silent_since=heard)
    told, asked = words(silent), words(replace(silent, idle_until=NOW, unused_since=NOW))

    assert (told.lamp, told.tone) == ("Silent", "waiting")
    assert told.sentences[0].startswith("Nothing is heard of vm-1 at the moment.")
    assert (asked.lamp, asked.tone, asked.sentences[-1]) == ("Still there?", "asking", told.sentences[0])
    assert silent.looks != ACTIVE.looks

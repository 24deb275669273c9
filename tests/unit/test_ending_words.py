"""What is said before a lease ends by itself, to whoever looks at another tab and to whoever listens."""

from dataclasses import replace
from datetime import timedelta

from allocator.views import LeaseView
from allocator.wording import words
from tests.unit.test_wording import ACTIVE, NOW

IDLE = replace(ACTIVE, unused_since=NOW - timedelta(minutes=50), idle_until=NOW + timedelta(minutes=10))


def ending(seconds: float, warned: float = 86_400) -> LeaseView:
    """A lease that ends in so many seconds, whose holder is warned so many before; it cannot be made longer."""
    end = NOW + timedelta(seconds=seconds)
    return replace(ACTIVE, expires_at=end, warned_from=end - timedelta(seconds=warned))


def longer(lease: LeaseView) -> LeaseView:
    return replace(lease, extensible_until=NOW + timedelta(hours=1))


def test_before_the_last_minutes_neither_tab_nor_announcement_says_anything_of_the_end() -> None:
    told = words(ending(901, warned=900))

    assert told.title == told.headline == "Your command is running"
    assert told.announcement.startswith("Your command is running. It runs on vm-1.")


def test_in_the_last_minutes_both_begin_with_the_end_and_with_what_can_be_done() -> None:
    told, extensible = words(ending(570, warned=900)), words(longer(ending(570, warned=900)))

    assert told.title == extensible.title == "Ends in 10 minutes · Your command is running"
    assert told.announcement.startswith("Ends within 10 minutes: save what you need. Your command is running. It runs")
    assert extensible.announcement.startswith("Ends within 10 minutes, unless you keep it longer. Your command")


def test_a_screen_reader_hears_of_the_end_a_few_times_and_the_tab_shows_each_minute() -> None:
    told = [words(ending(seconds)) for seconds in range(2 * 3600, 0, -1)]

    heard = list(dict.fromkeys(each.announcement.partition(":")[0] for each in told))
    times = ["2 hours", "60 minutes", "30 minutes", "15 minutes", "10 minutes", "5 minutes", "2 minutes"]
    assert heard == [f"Ends within {each}" for each in times] + ["Ends in less than a minute"]
    assert len({each.title for each in told}) == 120 + 1


def test_an_end_that_is_overdue_is_said_to_be_near() -> None:
    assert words(ending(-20)).title.startswith("Ends in less than a minute")


def test_whoever_leaves_a_machine_unused_is_warned_in_the_tab_and_not_aloud_each_minute() -> None:
    later = replace(IDLE, now=NOW + timedelta(minutes=3))

    assert words(IDLE).title == "Ends in 10 minutes · Your command is running"
    assert words(later).title == "Ends in 7 minutes · Your command is running"
    assert words(IDLE).announcement == words(later).announcement
    assert words(later).announcement.startswith("Ends within 10 minutes, unless you say that you are still here.")


def test_of_two_ends_the_nearer_is_told() -> None:
    nearly_over = replace(IDLE, expires_at=NOW + timedelta(minutes=4), warned_from=NOW)

    told = words(nearly_over)

    assert told.title.startswith("Ends in 4 minutes")
    assert told.announcement.startswith("Ends within 5 minutes: save what you need")
    assert len(told.sentences) == 4

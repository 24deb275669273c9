"""When a lease's page is made again: when something on it would look different, at most half a minute late."""

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.unit.test_wording import NOW, QUEUED


def test_a_page_looks_the_same_a_moment_later() -> None:
    assert replace(QUEUED, now=NOW + timedelta(seconds=20)).looks == QUEUED.looks


def test_a_wait_that_ends_at_the_same_time_looks_the_same() -> None:
    early = replace(QUEUED, eta_seconds=100)

    assert replace(early, now=NOW + timedelta(seconds=10), eta_seconds=90).looks == early.looks


@pytest.mark.parametrize(
    "changes", [{"version": 1}, {"position": 2}, {"eta_seconds": 60}, {"now": NOW + timedelta(seconds=30)}]
)
def test_what_can_be_seen_makes_a_difference(changes: dict[str, object]) -> None:
    assert replace(QUEUED, **changes).looks != QUEUED.looks  # type: ignore[arg-type]

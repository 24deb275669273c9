"""What the status page says of a pool that grows, is hindered, is paused or has hours."""

from dataclasses import replace

import pytest

from allocator.pool_views import PoolRules, PoolStatus
from allocator.pool_wording import choice_words, limits_words, status_words
from client.command import Accepts

POOL = PoolStatus(
    name="default",
    free=1,
    lent=2,
    coming=0,
    waiting=0,
    eta_seconds=None,
    eta_p90_seconds=None,
    booting=0,
    boot_seconds=None,
    boot_p90_seconds=None,
    paused=False,
    wanted=3,
    missing=0,
    stopped=False,
    hours=None,
)


def test_a_pool_that_has_what_it_needs_says_nothing_of_its_size() -> None:
    assert status_words(POOL) == ()


def test_machines_that_are_wanted_are_told_with_whether_they_can_come() -> None:
    assert status_words(replace(POOL, missing=1)) == ("One machine more is wanted, and on the way soon.",)
    assert status_words(replace(POOL, missing=2, stopped=True)) == (
        "2 machines more are wanted, and none can be made at the moment.",
    )


def test_a_pool_that_is_paused_says_so_first_and_no_wait() -> None:
    paused = replace(POOL, paused=True, free=0, waiting=3, missing=2)
    told = status_words(paused)
    assert told[0].startswith("Paused:") and len(told) == 1
    assert choice_words(paused) == told[0]


def test_its_hours_are_told() -> None:
    assert status_words(replace(POOL, hours="25 machines for workshop")) == ("Planned: 25 machines for workshop.",)


@pytest.mark.parametrize(
    ("each", "told"),
    [
        ({"default": 1}, "One machine a person at a time."),
        ({"default": 3}, "Up to 3 machines a person at a time."),
        ({"default": 1, "gpu": 1}, "One machine a person at a time."),
        ({"default": 1, "cpu": 3}, "One machine a person at a time, and besides up to 3 of cpu."),
        (
            {"gpu": 2, "default": 1, "cpu": 3},
            "One machine a person at a time, and besides up to 2 of gpu and 3 of cpu.",
        ),
        ({"default": 2, "cpu": 3}, "A person may have up to 2 of default and 3 of cpu at a time."),
    ],
)
def test_how_many_machines_a_person_may_have_is_true_of_every_pool_that_is_offered(
    each: dict[str, int], told: str
) -> None:
    offered = [PoolRules(name, Accepts(True, ()), 3600, False, limit) for name, limit in each.items()]
    assert limits_words(offered) == told

"""What is told to whoever watches: nothing that was true once, and is not any more."""

from dataclasses import replace

from allocator.metrics import Metrics
from allocator.views import Tally
from tests.unit.test_pool_wording import POOL


def test_a_wait_is_told_only_while_somebody_waits() -> None:
    metrics, waited = Metrics(), replace(POOL, waiting=2, eta_seconds=600, eta_p90_seconds=900)

    pages = [metrics.page(Tally({}, {}, 0, {}, [pool]), 0, 0, 0).decode() for pool in (waited, POOL)]

    told = 'lablink_pool_wait_seconds{odds="likely",pool="default"} 600.0'
    assert [told in page for page in pages] == [True, False]
    assert 'lablink_pool_waiting{pool="default"} 0.0' in pages[1]


def test_what_only_the_database_knows_is_not_told_while_it_is_away() -> None:
    metrics, tally = Metrics(), Tally({}, {}, 600.0, {"default": {"likely": 0.5}}, [POOL])

    there, away, back = [metrics.page(each, 3, 0, 0).decode() for each in (tally, None, tally)]

    for name in (
        "lablink_vms{",
        "lablink_live_leases{",
        "lablink_queue_oldest_seconds ",
        "lablink_waits_held{",
        "lablink_pool_waiting{",
    ):
        assert (name in there, name in away) == (True, False)
    assert "lablink_open_pages 3.0" in away
    assert back == there

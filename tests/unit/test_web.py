"""Which names a browser may reach the service by."""

import pytest

from allocator.app import STATUSES, status_of
from allocator.errors import Conflict, ServiceError, Unavailable
from allocator.web import Site

LOCAL = Site(None, "127.0.0.1")
OPEN = Site(None, "0.0.0.0")
NAMED = Site("https://lab.example.org", "0.0.0.0")


@pytest.mark.parametrize(
    ("site", "netloc", "ours"),
    [
        (LOCAL, "127.0.0.1:8000", True),
        (LOCAL, "localhost:8123", True),
        (LOCAL, "[::1]:8000", True),
        (LOCAL, "rebound.example:8000", False),
        (LOCAL, "", False),
        (LOCAL, "[", False),
        (OPEN, "anything.internal:8000", True),
        (NAMED, "lab.example.org", True),
        (NAMED, "LAB.example.org:443", True),
        (NAMED, "10.0.0.5:8000", True),
        (NAMED, "rebound.example", False),
        (NAMED, "lab.example.org.evil.example", False),
    ],
)
def test_a_browser_may_come_by_our_names_and_by_numbers(site: Site, netloc: str, ours: bool) -> None:
    assert site.is_ours(netloc) is ours


def test_every_error_has_a_status() -> None:
    kinds = [ServiceError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    leaves = [kind for kind in kinds if not kind.__subclasses__()]

    assert all(400 <= status_of(leaf()) < 600 for leaf in leaves)
    assert status_of(Conflict()) == STATUSES[Unavailable]

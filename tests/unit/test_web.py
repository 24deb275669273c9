"""Which names a browser may reach the service by, and how long a body is waited for."""

import asyncio

import pytest
from starlette.types import Message, Receive, Scope, Send

from allocator.app import STATUSES, status_of
from allocator.errors import Conflict, ServiceError, TooSlow, Unavailable
from allocator.problems import headers_of
from allocator.web import BodyLimitMiddleware, Site

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


async def test_a_body_that_never_comes_to_its_end_is_given_up() -> None:
    pieces = iter([{"type": "http.request", "body": b"{", "more_body": True}])

    async def never_ends() -> Message:
        return next(pieces, None) or await asyncio.get_running_loop().create_future()

    async def says_nothing(message: Message) -> None:
        raise AssertionError(message)

    async def is_not_reached(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError(scope)

    limited = BodyLimitMiddleware(is_not_reached, limit=100, seconds=0.01)
    with pytest.raises(TooSlow) as refusal:
        await limited({"type": "http", "method": "POST", "headers": []}, never_ends, says_nothing)

    assert headers_of(refusal.value) == {"Connection": "close"}

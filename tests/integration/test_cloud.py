"""AWS is asked with patience, and with an end to it."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from allocator.fleet.cloud import Cloud, Patience
from allocator.fleet.refusals import CloudRefused
from tests.support.cloud import KEYS, REGION

HASTY = Patience(attempts=1, each=0.5, in_all=0.1)


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """AWS takes every connection and answers none."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        for name, value in (KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.getsockname()[1]}"}).items():
            monkeypatch.setenv(name, value)
        yield


async def test_an_answer_that_does_not_come_is_waited_for_as_long_as_was_said(silent: None) -> None:
    with pytest.raises(CloudRefused, match=r"no answer within 0\.1 s") as refused:
        await Cloud(REGION, HASTY).instance("i-0123456789abcdef0")
    assert refused.value.code == "Timeout"


async def test_whoever_waits_for_a_turn_waits_no_longer_than_that_either(silent: None) -> None:
    cloud = Cloud(REGION, HASTY)
    answers = await asyncio.gather(*(cloud.role(f"vm-{n}") for n in range(40)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {CloudRefused}

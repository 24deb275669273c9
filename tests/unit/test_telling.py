"""Which machine is told what, in whatever order the answer of the database and its notification come."""

import asyncio
import json
from collections.abc import Callable
from uuid import uuid4

from starlette.types import Message
from starlette.websockets import WebSocket

from allocator.link import WAKE, Link
from allocator.requesting import Lent
from allocator.telling import Telling
from tests.support import LIMIT_SECONDS

LEASE = uuid4()


def hint(vm_id: int, epoch: int, status: str) -> str:
    return json.dumps([{"id": vm_id, "hostname": f"vm-{vm_id}", "status": status, "epoch": epoch}])


async def connects() -> Message:
    return {"type": "websocket.connect"}


async def link_of(telling: Telling, vm_id: int | None = 1) -> tuple[Link, list[str]]:
    """A link, and what it was told. Unless it is nobody's yet, that machine knows that it is available at epoch 0."""
    heard: list[str] = []

    async def send(message: Message) -> None:
        if "text" in message:
            heard.append(message["text"])

    socket = WebSocket({"type": "websocket"}, connects, send)
    await socket.accept()
    link = Link(socket, b"")
    if vm_id is not None:
        link.belongs_to(vm_id, 10.0)
        link.learns((0, "available"))
        telling.enter(link, vm_id)
    return link, heard


async def settled(done: Callable[[], bool] = lambda: True) -> None:
    """Everything that was begun is done, and so is that."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while len(asyncio.all_tasks()) > 1 or not done():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_orders_that_are_told_before_the_notification_are_all_that_is_told() -> None:
    telling = Telling()
    _, heard = await link_of(telling)
    with telling.lending() as lend:
        lend([Lent(1, 1, LEASE, "job")])
    telling.heard(hint(1, 1, "in-use"))
    await settled()
    assert [json.loads(text)["orders"]["epoch"] for text in heard] == [1]


async def test_a_notification_that_comes_before_the_answer_waits_for_it() -> None:
    telling = Telling()
    _, heard = await link_of(telling)
    with telling.lending() as lend:
        telling.heard(hint(1, 1, "in-use"))
        lend([Lent(1, 1, LEASE, "job")])
    await settled()
    assert [json.loads(text)["orders"]["epoch"] for text in heard] == [1]


async def test_a_notification_of_what_is_lent_elsewhere_waits_only_until_the_answer() -> None:
    telling = Telling()
    _, heard = await link_of(telling)
    with telling.lending() as lend:
        telling.heard(hint(1, 1, "in-use"))
        lend([])
    await settled()
    assert heard == [WAKE]


async def test_a_notification_waits_for_every_answer_that_it_may_be_of_and_for_no_later_one() -> None:
    telling = Telling()
    _, heard = await link_of(telling)
    with telling.lending() as first:
        with telling.lending():
            telling.heard(hint(1, 1, "in-use"))
        first([Lent(1, 1, LEASE, "job")])
    await settled()
    assert [json.loads(text)["orders"]["epoch"] for text in heard] == [1]
    earlier = telling.lending()
    earlier.__enter__()
    telling.heard(hint(1, 3, "in-use"))
    with telling.lending():
        earlier.__exit__(None, None, None)
        await settled()
        assert heard[1:] == [WAKE]


async def test_an_answer_that_does_not_come_is_not_waited_for() -> None:
    telling = Telling()
    _, heard = await link_of(telling)
    with telling.lending():
        telling.heard(hint(1, 1, "in-use"))
        await settled(lambda: heard == [WAKE])


async def test_who_is_woken_and_has_not_looked_yet_will_see_it_for_itself() -> None:
    telling = Telling()
    link, heard = await link_of(telling)
    telling.heard(hint(1, 2, "cleaning"))
    with telling.lending() as lend:
        lend([Lent(1, 1, LEASE, "job")])
    await settled()
    assert heard == [WAKE]
    link.looks()
    telling.heard(hint(1, 3, "in-use"))
    await settled()
    assert heard == [WAKE, WAKE]


async def test_what_was_hinted_at_while_somebody_arrived_is_told_unless_it_was_answered() -> None:
    for hinted, told in (((1, "in-use"), []), ((2, "cleaning"), [WAKE])):
        telling = Telling()
        link, heard = await link_of(telling, None)
        with telling.arriving(link):
            telling.heard(hint(1, *hinted))
            telling.heard(hint(2, 7, "failed"))
            link.belongs_to(1, 10.0)
            link.learns((1, "in-use"))
            telling.enter(link, 1)
        await settled()
        assert heard == told


async def test_so_many_hints_that_they_are_not_kept_are_a_reason_to_look() -> None:
    telling = Telling()
    link, heard = await link_of(telling, None)
    with telling.arriving(link):
        for first in range(2, 20_102, 100):
            hints = [json.loads(hint(vm_id, 1, "failed"))[0] for vm_id in range(first, first + 100)]
            telling.heard(json.dumps(hints))
        link.belongs_to(1, 10.0)
        telling.enter(link, 1)
    await settled()
    assert heard == [WAKE]

"""Where the hub is, how often a machine may speak there, and how soon a dead link is noticed."""

import asyncio

import pytest
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketState
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Response

from allocator.link import BURST, VERBS_A_SECOND, WRITE, Gone, Link
from allocator.sockets import text_frame
from client.link import CLOSE_SECONDS, PING_SECONDS, PONG_SECONDS, InsecureHub, socket_url, told_to_wait, words
from tests.unit.conftest import Clock


async def silence() -> Message:
    raise AssertionError("nobody is asked")


async def nowhere(message: Message) -> None:
    raise AssertionError("nothing is sent")


async def test_a_machine_says_a_few_verbs_at_once_and_then_waits_its_turn(clock: Clock) -> None:
    link = Link(WebSocket({"type": "websocket"}, silence, nowhere), b"")
    pauses = [link.pause() for _ in range(BURST + 2)]
    waits = [0.0] * BURST + [1 / VERBS_A_SECOND, 2 / VERBS_A_SECOND]
    assert pauses == pytest.approx(waits, abs=0.001)  # the last bits of sums are not exact


async def test_a_machine_is_woken_once_until_it_looks() -> None:
    link = Link(WebSocket({"type": "websocket"}, silence, nowhere), b"")
    assert [link.is_to_wake(), link.is_to_wake()] == [True, False]
    link.looks()
    assert link.is_to_wake()


async def test_only_who_comes_when_it_was_to_has_time() -> None:
    link = Link(WebSocket({"type": "websocket"}, silence, nowhere), b"")
    assert not link.looks(), "the first time it has none"
    link.belongs_to(1, period_seconds=0)
    assert link.looks()
    link.is_to_wake()
    assert not link.looks(), "it was woken"
    link.belongs_to(1, period_seconds=3600)
    assert not link.looks(), "it comes long before it was to"


async def test_who_does_not_read_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connects() -> Message:
        return {"type": "websocket.connect"}

    async def takes_no_text(message: Message) -> None:
        if message["type"] == "websocket.send":
            await asyncio.Event().wait()

    monkeypatch.setattr("allocator.link.SEND_SECONDS", 0.01)
    socket = WebSocket({"type": "websocket"}, connects, takes_no_text)
    await socket.accept()
    with pytest.raises(Gone) as gone:
        await Link(socket, b"").say("{}")
    assert isinstance(gone.value.__cause__, TimeoutError)


def link_that_writes(can: list[bool], written: list[str]) -> Link:
    """A link whose server writes at once as long as `can` says True; else it takes longer."""

    def at_once(text: str) -> bool:
        if can[0]:
            written.append(text)
        return can[0]

    async def send(message: Message) -> None:
        if message["type"] == "websocket.send":
            written.append(message["text"])

    async def connects() -> Message:
        return {"type": "websocket.connect"}

    socket = WebSocket({"type": "websocket", "extensions": {WRITE: {"at_once": at_once}}}, connects, send)
    socket.application_state = socket.client_state = WebSocketState.CONNECTED
    return Link(socket, b"")


async def test_what_a_machine_is_told_is_written_at_once_where_it_reads() -> None:
    written: list[str] = []
    assert link_that_writes([True], written).tell("news") is None
    assert written == ["news"]


async def test_what_must_wait_until_a_machine_reads_is_not_overtaken() -> None:
    can, written = [False], list[str]()
    link = link_that_writes(can, written)
    first = link.tell("first")
    can[0] = True
    second = link.tell("second")
    assert first and second and not written
    await first
    await second
    assert link.tell("third") is None
    assert written == ["first", "second", "third"]


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_a_text_of_any_length_is_written_as_the_library_would(size: int) -> None:
    assert text_frame("ü" + "x" * size) == Frame(Opcode.TEXT, b"\xc3\xbc" + b"x" * size).serialize(mask=False)
    assert text_frame("x" * size) == Frame(Opcode.TEXT, b"x" * size).serialize(mask=False)


def test_a_link_that_says_nothing_is_given_up_within_seven_seconds() -> None:
    assert PING_SECONDS + PONG_SECONDS + CLOSE_SECONDS <= 7


@pytest.mark.parametrize(
    ("url", "hub"),
    [
        ("https://lab.example.org", "wss://lab.example.org/api/v1/hub"),
        ("https://lab.example.org:8443/", "wss://lab.example.org:8443/api/v1/hub"),
        ("http://127.0.0.1:8000", "ws://127.0.0.1:8000/api/v1/hub"),
    ],
)
def test_the_hub_is_where_the_machine_enrolled(url: str, hub: str) -> None:
    assert socket_url(url) == hub


@pytest.mark.parametrize("url", ["http://lab.example.org", "ftp://127.0.0.1", "lab.example.org"])
def test_a_hub_that_others_could_listen_to_is_not_spoken_to(url: str) -> None:
    with pytest.raises(InsecureHub, match="https"):
        socket_url(url)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (["4"], 4.0),
        (["3600"], 30.0),
        (["-1"], 0.0),
        (["nan"], 0.0),
        ([], None),
        (["4", "5"], None),
        (["Sun, 22 Nov 2026 08:00:00 GMT"], None),
    ],
)
def test_an_allocator_that_is_full_says_when_there_is_room_and_is_believed_within_bounds(
    said: list[str], seconds: float | None
) -> None:
    headers = Headers([("Retry-After", value) for value in said])
    assert told_to_wait(InvalidStatus(Response(503, "Service Unavailable", headers))) == seconds


@pytest.mark.parametrize(
    ("status", "why"), [(403, "is older"), (404, "WebSockets"), (503, "the allocator answers 503")]
)
def test_where_no_hub_is_its_absence_is_what_a_machine_logs(status: int, why: str) -> None:
    assert why in words(InvalidStatus(Response(status, "", Headers())))

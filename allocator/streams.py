"""Events for as long as a page is open, as a browser's EventSource reads them."""

import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from fastapi.sse import format_sse_event
from starlette.responses import StreamingResponse
from starlette.types import Send

RETRY_MILLISECONDS = (100, 1000)
"""How long a browser waits before it opens a stream again: spread, for an allocator that is gone leaves many pages."""


class EventStream(StreamingResponse):
    """Sends what `events` yields. FastAPI's own would keep two tasks and two queues more for each page."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes]) -> None:
        super().__init__(events, headers={"X-Accel-Buffering": "no"})  # what nginx would wait for
        self._events = events

    async def stream_response(self, send: Send) -> None:
        """Send them; at the end, and when the page is closed, `events` is closed too."""
        async with aclosing(self._events):
            await super().stream_response(send)


def event(name: str, data: str) -> bytes:
    """One event."""
    return format_sse_event(event=name, data_str=data)


def changes(shown: dict[str, str], now: Mapping[str, str]) -> bytes:
    """A look at the news: an event for each piece that is not `shown` as it is now, and from then on is.

    It ends with a beat, whether there were any: a page that hears none knows that it is not connected.
    """
    events = [event(name, html) for name, html in now.items() if shown.get(name) != html]
    shown.update(now)
    beat = format_sse_event(event="beat", data_str="beat", retry=random.randint(*RETRY_MILLISECONDS))
    return b"".join(events) + beat

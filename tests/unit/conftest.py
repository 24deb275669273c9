"""What tests need that have nothing but this process."""

import asyncio

import hypothesis
import pytest_asyncio

hypothesis.settings.register_profile(
    "unhurried", hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
)
hypothesis.settings.load_profile("unhurried")


class Clock:
    """The clock of the event loop, which goes on only when it is told to."""

    def __init__(self, now: float) -> None:
        self._now = now

    def __call__(self) -> float:
        return self._now

    def go_on(self, seconds: float) -> None:
        """So much time passes."""
        self._now += seconds


@pytest_asyncio.fixture
async def clock() -> Clock:
    """The loop's clock stands still: between two calls no time passes, however long they take."""
    loop = asyncio.get_running_loop()
    stopped = Clock(loop.time())
    loop.time = stopped  # type: ignore[method-assign]
    return stopped

"""A service that is told to stop serves on for as long as load balancers need to notice."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support import LIMIT_SECONDS
from tests.support.database import Database
from tests.support.service import RunningService, ready, running_service, settings_for

LONG = "server.linger_seconds=300"


def events(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """What the service logged."""
    return [record.msg for record in caplog.records if isinstance(record.msg, dict)]


@pytest_asyncio.fixture
async def lingering(database: Database, tmp_path: Path) -> AsyncIterator[RunningService]:
    """A service that was told to stop, and has five minutes."""
    async with running_service(settings_for(database, tmp_path, LONG)) as service:
        await ready(service.service)
        service.server.should_exit = True
        async with asyncio.timeout(LIMIT_SECONDS):
            await service.service.leaving.wait()
        yield service
        service.server.force_exit = True


async def test_it_says_that_nobody_is_to_come_and_serves_whoever_does(lingering: RunningService) -> None:
    async with lingering.client() as client:
        ready = await client.get("/readyz")
        served = await client.get("/api/v1/vms")

    assert (ready.status_code, ready.json()["type"]) == (503, "urn:lablink:stopping")
    assert (served.status_code, served.headers["Connection"]) == (httpx.codes.OK, "close")


async def test_it_does_not_log_each_time_that_a_load_balancer_asks(
    lingering: RunningService, caplog: pytest.LogCaptureFixture
) -> None:
    async with lingering.client() as client:
        await client.get("/readyz")
    assert events(caplog) == []


async def test_it_logs_that_it_leaves(service: RunningService, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await service.stop()
    (leaving,) = (event for event in events(caplog) if event["event"] == "service.leaving")
    assert (leaving["seconds"], leaving["machines"], leaving["pages"]) == (0, 0, 0)


async def test_who_asks_a_second_time_need_not_wait_and_it_ends_cleanly(
    lingering: RunningService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    lingering.server.force_exit = True

    async with asyncio.timeout(LIMIT_SECONDS):
        await asyncio.shield(lingering.ended)
    assert "Application shutdown complete." in caplog.text

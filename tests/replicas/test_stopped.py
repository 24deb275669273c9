"""An allocator is told to stop: nobody is refused, whether they come, follow a page or are machines."""

import asyncio
import signal
from pathlib import Path

import httpx
from playwright.async_api import Browser

from tests.replicas.conftest import Replicas
from tests.support import LIMIT_SECONDS
from tests.support.crowd import Crowd, coming
from tests.support.service import NO_TLS
from tests.support.up import LOOK_EVERY

EACH_ALONE = httpx.Limits(max_keepalive_connections=0)
"""Over a connection that idles somebody may ask at the moment in which it is ended, whoever stops or does not."""


async def test_people_machines_and_pages_go_on_at_another_and_nobody_is_refused(
    replicas: Replicas, browser: Browser, tmp_path: Path
) -> None:
    tab, leaves = await replicas.followed(browser, tmp_path / "go")
    async with httpx.AsyncClient(
        base_url=replicas.url, timeout=LIMIT_SECONDS, verify=NO_TLS, limits=EACH_ALONE
    ) as client:
        crowd = Crowd(client, lambda number: f"sh -c 'echo {number}'")
        async with coming(crowd):
            await crowd.accepts(20)
            stopped = asyncio.create_task(leaves.stop())
            async with asyncio.timeout(LIMIT_SECONDS):
                while await leaves.readiness() != 503:  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_EVERY)
            async with httpx.AsyncClient(base_url=leaves.url, verify=NO_TLS) as late:  # a balancer that asks seldom
                answer = await late.get("/api/v1/vms")
            assert await stopped == -signal.SIGTERM  # which uvicorn ends by, once all is done
            await crowd.accepts(20)
        await crowd.leave()

    assert (answer.status_code, answer.headers["Connection"]) == (200, "close")
    assert (list(crowd.refused), crowd.unanswered) == ([], 0)
    (tmp_path / "go").touch()
    await tab.shows("Your command is done")
    await replicas.all_connected(replicas.others(leaves))
    assert await replicas.pool.owner.fetch("SELECT * FROM broken_invariants()") == []
